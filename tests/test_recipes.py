"""The recipes that come with adaptkit: every name, every option and every number that they quote."""

import functools
import json
import random
from collections import Counter
from dataclasses import replace
from statistics import harmonic_mean, mean

import pytest
from PIL import Image

from adaptkit import cli
from adaptkit.io import yamls
from adaptkit.runs import build as options
from adaptkit.runs import plugins, recipe, shelf

NAMES, read = shelf.names(), functools.cache(recipe.read_recipe)
CHILDREN = [name for name in NAMES if "extends" in yamls.read_yaml(shelf.find_recipe(name))]
CLIP = [*(f"hf:openai/clip-vit-base-patch{size}" for size in (16, 32)), "open_clip:RN50-quickgelu/openai"]
ELEVEN = [
    *("caltech101", "dtd", "eurosat", "fgvc_aircraft", "food101", "imagenet"),
    *("oxford_flowers", "oxford_pets", "stanford_cars", "sun397", "ucf101"),
]


def test_every_recipe_file_is_found_by_a_name_of_its_own():
    files = [path.relative_to(shelf.folder()).with_suffix("") for path in shelf.folder().rglob("*.yaml")]
    assert sorted(map(str, files)) == NAMES == sorted(set(NAMES)), "each file must be one name"


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_right(name):
    found = options.check_recipe(read(name))
    assert len(found.labels()) == len(found.methods) > 0, "each method must have a row of its own"
    sets = {*found.domains, *found.near, *found.far} - {"openmoji": {"line"}, "openmoji:line": {"colour"}}.get(
        found.dataset, set()
    )
    known = {*plugins.table("datasets"), "new"}
    assert sets <= known, f"its test sets must be datasets or domains of its own; got {sorted(sets - known)}"
    if {*found.domains} & {*ELEVEN, "digits"}:
        options.check_elsewhere(found)  # which a run would do
    folder, _, called = name.rpartition("/")
    assert folder in ("", "quickstart") or called == found.dataset, "it must be called after its dataset"


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_it_is_for_and_whose_its_numbers_are(name):
    text, found = shelf.find_recipe(name).read_text(), read(name)
    assert text.startswith("# "), "it must begin with what it is for"
    for quote in own(name):
        assert quote.source.startswith(("github.com/", "arXiv:")), f"anyone must be able to look: {quote}"
        assert 5 < quote.value < 100 and 1 <= quote.within < 10, f"it must be a percentage: {quote}"
        assert quote.method in plugins.table("methods"), f"it must be a method that can be run: {quote}"
        assert quote.shots in (0, *found.shots), f"it must stand beside a column: {quote}"
        assert quote.backbone in CLIP, f"it must be a backbone that loads: {quote}"
        sets = [*found.domains, *(["new"] if found.classes == "base" else [])]
        metrics = ["accuracy", *(f"{domain}/accuracy" for domain in sets), *(["harmonic"] if "new" in sets else [])]
        assert quote.metric in metrics, f"it must be a number that the recipe measures: {quote}"
    if found.backbone.startswith("hf:"):
        assert bool(own(name)) != ("No number of a paper is quoted" in text), "it must quote some, or say so"


@pytest.mark.parametrize("name", CHILDREN)
def test_a_recipe_is_a_difference_from_its_protocol(name):
    path = shelf.find_recipe(name)
    raw = yamls.read_yaml(path)
    parent = (path.parent / raw.pop("extends")).resolve()
    assert parent.parent == shelf.folder() and "extends" not in yamls.read_yaml(parent), (
        "one step must lie between them"
    )
    assert path.parent.name in (shelf.folder().name, "quickstart", parent.stem), "a folder must have its name"
    same = [key for key, value in raw.items() if yamls.read_yaml(parent).get(key) == value]
    assert not same, f"what it says must differ from {parent.name}; got the same {', '.join(same)}"


@pytest.mark.parametrize("folder", ["few_shot", "base_to_new", "unsupervised", "test_time"])
def test_a_setting_has_a_recipe_for_each_of_the_eleven_datasets(folder):
    assert sorted(path.stem for path in (shelf.folder() / folder).glob("*.yaml")) == ELEVEN
    made = [read(f"{folder}/{dataset}") for dataset in ELEVEN]
    rows = [[*one.labels()] for one in made]
    assert all(own == rows[0] for own in rows), "rows of other names could not be averaged"
    assert {one.backbone for one in made} == {"hf:openai/clip-vit-base-patch16"}


def own(name):
    """What a recipe's own file quotes, each with its backbone."""
    found = read(name)
    count = len(yamls.read_yaml(shelf.find_recipe(name)).get("published", ()))
    return [replace(q, backbone=q.backbone or found.backbone) for q in found.published[len(found.published) - count :]]


def quotes():
    """Every quoted number, by folder and by what it is of; those of single datasets by dataset."""
    for name in NAMES:
        folder, _, dataset = name.partition("/")
        for quote in own(name):
            about = (folder, quote.method, quote.shots, quote.metric, quote.backbone)
            yield (about, "mean" if quote.datasets > 1 else dataset), quote.value


def test_no_number_is_quoted_twice():
    twice = [key for key, times in Counter(key for key, _ in quotes()).items() if times > 1]
    assert not twice, f"each must stand in one place; got {twice}"


def test_quoted_means_are_the_means_of_what_is_quoted():
    values, held = dict(quotes()), 0
    for about in {about for about, _ in values}:
        each = [values[about, dataset] for dataset in ELEVEN if (about, dataset) in values]
        if len(each) == len(ELEVEN):
            assert values[about, "mean"] == pytest.approx(mean(each), abs=0.01), f"{about}: a number was copied wrongly"
            held += 1
        *of, metric, backbone = about
        if metric == "harmonic":
            halves = [values[(*of, half, backbone), "mean"] for half in ("accuracy", "new/accuracy")]
            assert values[about, "mean"] == pytest.approx(harmonic_mean(halves), abs=0.01), f"{about}: so it was here"
            held += 1
    assert held == 20, "GDA of 16 shots on three backbones, zero-shot on one, base and new classes; 14 harmonic"


@pytest.fixture
def dtd(tmp_path, monkeypatch):
    """Four textures of noise in the layout of DTD, four training images of each."""
    monkeypatch.setenv("ADAPTKIT_DATA", str(tmp_path))
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))
    (tmp_path / "dtd/images").mkdir(parents=True)
    split, noise = {"train": [], "val": [], "test": []}, random.Random(0)
    for part, count in (("train", 4), ("val", 1), ("test", 2)):
        for i in range(4 * count):
            Image.frombytes("L", (8, 8), noise.randbytes(64)).save(tmp_path / f"dtd/images/{part}{i}.png")
            split[part].append([f"{part}{i}.png", i % 4, ("banded", "dotted", "lined", "woven")[i % 4]])
    (tmp_path / "dtd/split_zhou_DescribableTextures.json").write_text(json.dumps(split))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "methods", "shots", "metrics"),
    [
        ("few_shot/dtd", "zero-shot,gda", "1", {"accuracy"}),
        ("base_to_new/dtd", "zero-shot,gda-base-to-new", "4", {"accuracy", "new/accuracy"}),
    ],
)
def test_a_recipe_of_the_field_runs_from_the_layout_on_disk(name, methods, shots, metrics, dtd, capsys):
    small = ["--only", methods, "--shots", shots, "--seeds", "1", "--set", "backbone=toy:0", "--quiet"]
    assert cli.main(["run", name, *small, "--out", str(dtd / "out")]) == 0
    records = [json.loads(path.read_text()) for path in (dtd / "out").glob("*-shot.*.json")]
    assert sorted(r["method"] for r in records) == sorted(methods.split(",")), "one cell of each must be there"
    assert all(metrics <= set(r["metrics"]) for r in records), f"with {metrics}"
    assert "beside published numbers" not in capsys.readouterr().out, "those of CLIP must not stand beside a toy's"


def test_the_galleries_and_recipes_of_other_settings_run_every_method_that_answers_with_classes():
    others = ("incremental", "domain_adaptation", "multi_label")
    shown = {spec.name for name in ("gallery", "gallery_towers", *others) for spec in read(name).methods}
    classes = {
        name
        for name, cls in plugins.table("methods").items()
        if cls.output == "logits" and "classification" in cls.answers
    }
    assert classes <= shown, f"a new method must be shown in one of them; not so {sorted(classes - shown)}"
