"""Samplers draw what the code bases drew: a vector that needs no data, published digests, and the global generators."""

import csv
import hashlib
import json
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from adaptkit.features.samplers import SAMPLERS, by_class, sample
from adaptkit.features.split_files import export, path_digest, read_split, support_paths

SPLITS = Path(__file__).parents[2] / "shared/splits"  # other people's files, where they lie beside the repository
FILES = {
    "dtd": "DescribableTextures",
    "eurosat": "EuroSAT",
    "oxford_flowers": "OxfordFlowers",
    "oxford_pets": "OxfordPets",
}
DRAWN = {  # two shots of classes 2, 0 and 1 in this order, by seed: training images, validation images
    1: ("c2/02 c2/01 c0/04 c0/01 c1/07 c1/09", "v2/3 v2/4 v0/1 v0/0 v1/3 v1/0"),
    2: ("c2/00 c2/01 c0/01 c0/05 c1/02 c1/04", "v2/2 v2/1 v0/4 v0/0 v1/4 v1/1"),
    3: ("c2/03 c2/08 c0/02 c0/05 c1/09 c1/07", "v2/4 v2/0 v0/4 v0/0 v1/3 v1/2"),
}
LABELS = [5] * 3 + [2] * 20 + [0] * 17 + [2] * 2  # the first class is short of 4, 8 and 16 shots
VAL = [2, 5, 5, 0, 0, 0, 2, 2, 2, 2, 5, 0, 0]


def synthetic():
    """The split file of the vector above."""
    train = [[f"c{c}/{i:02d}.jpg", c, f"class {c}"] for c in (2, 0, 1) for i in range(10)]
    val = [[f"v{c}/{i}.jpg", c, f"class {c}"] for c in (2, 0, 1) for i in range(5)]
    return {"train": train, "val": val, "test": val}


def cases():
    """Dataset, shots, seed, and for both parts number and digest of the paths."""
    for seed, parts in DRAWN.items():
        paths = [[f"{name}.jpg" for name in part.split()] for part in parts]
        yield "synthetic", 2, seed, *(v for part in paths for v in (len(part), digest(part)))
    if SPLITS.is_dir():
        with open(SPLITS / "supports.tsv", newline="") as lines:
            for row in csv.DictReader(lines, delimiter="\t"):
                numbers = int(row["train_n"]), row["train_sha256"], int(row["val_n"]), row["val_sha256"]
                yield row["dataset"], int(row["shots"]), int(row["seed"]), *numbers


def digest(paths):
    return hashlib.sha256("\n".join(paths).encode()).hexdigest()


@cache
def parts_of(name):
    return synthetic() if name == "synthetic" else read_split(SPLITS / f"split_zhou_{FILES[name]}.json")


@pytest.mark.parametrize(("name", "shots", "seed", "n", "sha256", "val_n", "val_sha256"), [*cases()])
def test_coop_draws_the_supports_that_were_published(name, shots, seed, n, sha256, val_n, val_sha256):
    parts = parts_of(name)
    rows = sample("coop", [i[1] for i in parts["train"]], [i[1] for i in parts["val"]], shots, seed)
    for part, drawn, number, want in zip(("train", "val"), rows, (n, val_n), (sha256, val_sha256), strict=True):
        paths = [parts[part][row][0] for row in drawn]
        assert len(paths) == number, f"number of {part} images"
        assert digest(paths) == want, f"{part} images, and their order"


def globally(k, labels, repeat):
    """K of each class from the global generator, as all the code bases do it."""
    return [
        row
        for rows in by_class(labels).values()
        for row in (random.sample(rows, k) if len(rows) >= k else random.choices(rows, k=k) if repeat else rows)
    ]


def val_first(k, seed):
    random.seed(seed)
    val = globally(min(k, 4), VAL, True)
    return globally(k, LABELS, True), val


def tip(k, seed):
    random.seed(seed)
    return globally(k, LABELS, True), list(range(len(VAL)))


def gda(k, seed):
    random.seed(seed)
    for shots in (1, 2, 4, 8, 16):
        train = globally(shots, LABELS, True)
        if shots == k:
            return train, list(range(len(VAL)))
    raise AssertionError("the script runs no other shots")


def lp(k, seed):
    random.seed(seed)
    return globally(k, LABELS, True), globally(k, VAL, True)


def lp_pool(k, seed):
    pool, val_pool = lp(k, 1)
    random.seed(seed)
    train = globally(k, [LABELS[row] for row in pool], True)
    val = globally(k, [VAL[row] for row in val_pool], True)
    return [pool[row] for row in train], [val_pool[row] for row in val]


def coop(k, seed):
    random.seed(seed)
    return globally(k, LABELS, False), globally(min(k, 4), VAL, False)


RELEASES = {"coop": coop, "val-first": val_first, "tip": tip, "gda": gda, "lp++": lp, "lp++-pool": lp_pool}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("name", RELEASES)
def test_an_instance_draws_what_the_release_draws_from_the_global_generator(name, shots, seed):
    assert sample(name, LABELS, VAL, shots, seed) == RELEASES[name](shots, seed), "rows and their order"


@pytest.mark.parametrize("shots", [1, 2, 3])
def test_the_probe_draws_by_label_from_numpys_global_generator(shots):
    np.random.seed(7)
    want = [
        [row for c in (0, 2, 5) for row in np.random.choice(np.where(np.array(labels) == c)[0], shots, replace=False)]
        for labels in (LABELS, VAL)
    ]
    assert sample("probe", LABELS, VAL, shots, 7) == tuple(want), "classes by label, train before val"


def test_every_sampler_is_held_against_its_release():
    assert {*RELEASES, "probe"} == {*SAMPLERS}, "a sampler came or went; give it a reference above"


def test_lp_plus_plus_sees_the_same_images_in_every_task_of_six_datasets():
    pools = [sample("lp++-pool", LABELS, VAL, 4, seed) for seed in (1, 2, 3)]
    assert len({tuple(sorted(set(train[-8:]))) for train, _ in pools}) == 1, "the same images of the two long classes"
    assert len({tuple(train) for train, _ in pools}) == 3, "in another order"


@pytest.mark.parametrize(("name", "few"), [("val-first", 4), ("lp++", 8), ("lp++-pool", 8)])
def test_without_validation_images_some_hold_back_training_images(name, few):
    labels = [c for c in (1, 0) for _ in range(30)]
    random.seed(3)
    drawn = [random.sample(rows, 8 + few) for rows in by_class(labels).values()]
    want = [row for rows in drawn for row in rows[:8]], [row for rows in drawn for row in rows[8:]]
    assert sample(name, labels, None, 8, 3) == want, "both from one draw of each class"
    assert not set(want[0]) & set(want[1]), "no image is in both"


@pytest.mark.parametrize("name", ["coop", "tip", "gda", "probe"])
def test_without_validation_images_the_others_have_none(name):
    assert sample(name, [0, 0, 1, 1], None, 1, 1)[1] is None, "the release takes the test images; we do not"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("coup", [0], None, 1, 1), "sampler must be one of coop, .*; got 'coup'; did you mean 'coop'"),
        ((["coop"], [0], None, 1, 1), "sampler must be one of"),
        (("coop", [0], None, 0, 1), "shots must be a whole number from 1; got 0"),
        (("coop", [0], None, True, 1), "shots must be a whole number"),
        (("coop", [0], None, 1, -1), "seed must be a whole number from 0; got -1"),
        (("coop", [0], None, 1, 1.0), "seed must be a whole number"),
        (("probe", [0, 0, 1], None, 2, 1), "a class must have 2 images to draw from; got 1 with label 1"),
        (("val-first", [0, 0, 0], None, 2, 1), "a class must have 4 images to draw from; got 3 with label 0"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        sample(*arguments)
    assert "\n" not in str(caught.value)


@pytest.fixture
def split(tmp_path):
    path = tmp_path / "split_zhou_Toy.json"
    path.write_text(json.dumps(synthetic()))
    return path


def test_supports_are_paths_in_the_order_drawn(split):
    train, val = ([f"{name}.jpg" for name in part.split()] for part in DRAWN[1])
    assert support_paths(split, 2, 1) == train
    assert support_paths(str(split), 2, 1, "coop", val=True) == val
    assert len(support_paths(split, 2, 1, "tip", val=True)) == 15, "Tip-Adapter chooses on all validation images"


def test_supports_of_a_file_without_validation_images(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": synthetic()["train"]}))
    assert len(support_paths(path, 2, 1)) == 6, "training images need no others"
    assert set(support_paths(path, 2, 1, "val-first", val=True)).isdisjoint(support_paths(path, 2, 1, "val-first")), (
        "held back"
    )
    with pytest.raises(ValueError, match="must have images in val for sampler 'coop'"):
        support_paths(path, 2, 1, val=True)


def test_an_export_names_its_draws_and_their_digests(split, tmp_path):
    out = tmp_path / "made" / "export.json"
    sha256 = export(split, out, 2, 1)
    written = json.loads(out.read_text())
    assert {k: written[k] for k in ("dataset", "sampler", "shots", "seed")} == {
        "dataset": "split_zhou_Toy",
        "sampler": "coop",
        "shots": 2,
        "seed": 1,
    }
    assert written["train"] == support_paths(split, 2, 1) and written["val"] == support_paths(split, 2, 1, val=True)
    assert sha256 == written["sha256"]["train"] == path_digest(written["train"]) == digest(written["train"])
    assert written["sha256"]["val"] == digest(written["val"])


GOOD = ["a/1.jpg", 0, "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be a readable JSON file"),
        ("[" * 100_000, "must be a readable JSON file"),
        ("[]", "must hold lists train, val and test of .*; got list"),
        ('{"training": []}', "must hold lists train.*; got keys 'training'"),
        ('{"train": []}', "must hold lists train"),
        (json.dumps({"train": [GOOD], "val": {}}), "must hold lists train"),
        (json.dumps({"train": [GOOD, ["a/1.jpg", 0]]}), r"item 1 of train must be \[path, label, class name\]"),
        (json.dumps({"train": [["a/1.jpg", "0", "a"]]}), "item 0 of train must be"),
        (json.dumps({"train": [["a/1.jpg", True, "a"]]}), "item 0 of train must be"),
        (json.dumps({"train": [["a/1.jpg", -1, "a"]]}), "item 0 of train must be"),
        (json.dumps({"train": [GOOD], "test": [["/etc/passwd", 0, "a"]]}), "item 0 of test must have a path inside"),
        (json.dumps({"train": [["a/../../b.jpg", 0, "a"]]}), "must have a path inside"),
        (json.dumps({"train": [["..\\b.jpg", 0, "a"]]}), "must have a path inside"),
        (json.dumps({"train": [["C:\\b.jpg", 0, "a"]]}), "must have a path inside"),
        (json.dumps({"train": [["a\nb.jpg", 0, "a"]]}), "must have a path inside"),
        (json.dumps({"train": [["", 0, "a"]]}), "must have a path inside"),
    ],
)
def test_a_split_file_of_another_shape_is_one_line(tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        support_paths(path, 1, 1)
    assert "\n" not in str(caught.value)
    assert "split.json" in str(caught.value), "the line must name the file"


def test_a_split_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json must be a readable JSON file .*No such file"):
        support_paths(tmp_path / "none.json", 1, 1)


def test_drawing_needs_no_torch():
    code = "import sys, adaptkit.features.split_files, adaptkit.features.samplers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0, "'adaptkit data supports' must answer at once"
