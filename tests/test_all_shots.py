"""All labelled images that there are, asked for as ``all``."""

import json

import pytest

import adaptkit as ak
from adaptkit.features.samplers import SAMPLERS, sample
from adaptkit.io.shots import ALL_SHOTS
from adaptkit.report.table import had
from tests.small import Command, photos

LABELS = [0, 0, 0, 1, 1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("val", [None, LABELS])
def test_every_sampler_gives_each_image_once(sampler, val):
    rows, _ = sample(sampler, LABELS, val, ALL_SHOTS, 1)
    assert sorted(rows) == [*range(len(LABELS))], "an image is missing, or drawn twice"


@pytest.mark.parametrize("support", ["few-shot", "long-tailed", "fpl", "pseudo-label"])
def test_every_support_takes_all(support):
    task, _ = ak.load("toy", backbone="toy:0", shots="all", select="none", support=support)
    most = max(task.support.labels.bincount().tolist())
    assert most >= 20, f"{support} leaves images out of the largest class: {most}"


def test_a_run_of_all_shots_says_all_everywhere(tmp_path, capsys):
    say, out = Command(tmp_path / "home", capsys), tmp_path / "out"
    asked = ("run", "toy", "--set", "seeds=[1]", "--set", "methods=[gda]", "--out", out, "--quiet")
    code, told, err = say(*asked, "--shots", "2,all")
    assert code == 0 and "all shots" in told and str(ALL_SHOTS) not in told + err, told + err
    record = next(json.loads(file.read_text()) for file in out.glob("*.all-shot.*.json"))
    assert record["shots"] == "all" and sum(record["images_per_class"]) == 100, record["images_per_class"]
    assert json.loads((out / "recipe.json").read_text())["shots"] == [2, "all"], "the recipe's shots are not kept"
    assert "0 to run" in say(*asked, "--set", "shots=all")[1], "the cell is not known again"
    code, told, _ = say("compare", out, "--where", "shots=all")
    assert code == 0 and "all shots" in told and "2 shots" not in told, told
    for suffix in ("csv", "md", "tex", "html"):
        file = tmp_path / f"c.{suffix}"
        assert say("compare", out, "--out", file)[0] == 0 and "all" in file.read_text(), suffix
    assert had(ALL_SHOTS, list(ak.read_results(out))), "how many there truly were is not told"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("shots", "--where must be KEY=VALUE"),
        ("shot=2", "did you mean 'shots'?"),
        ("shots=4", "must be what some result has, 2; got '4'"),
        ("backbone=hf:x", "must be what some result has, toy:0"),
        ("domain=sketch", "must be what some result has"),
    ],
)
def test_a_wrong_condition_is_refused_with_what_there_is(where, message, tmp_path, capsys):
    say, out = Command(tmp_path / "home", capsys), tmp_path / "out"
    task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    about = {"shots": 2, "protocol": {"dataset": "toy", "backbone": "toy:0"}}
    from dataclasses import replace

    replace(ak.compare(task, test, ["zero-shot"])[0], **about).save(out / "one.json")
    code, _, err = say("compare", out, "--where", where)
    assert code == 2 and err.count("\n") == 1 and message in err, err


def test_results_of_two_backbones_in_one_folder_are_told_apart(tmp_path, capsys):
    say, out = Command(tmp_path / "home", capsys), tmp_path / "out"
    common = ("run", "toy", "--shots", "2", "--set", "seeds=[1]", "--set", "methods=[zero-shot]", "--quiet")
    for seed in (0, 1):
        code, told, err = say(*common, "--set", f"backbone=toy:{seed}", "--out", out)
        assert code == 0, err
    assert len([*out.glob("*-shot.*.json")]) == 1, f"both lie in one folder: {told}"
    assert f"results: {out}/" in told.replace(str(out) + "\n", ""), told
    for folder in (out, *(file.parent for file in out.glob("*/recipe.json"))):
        assert say("compare", folder)[0] == 0, "a folder holds results of two backbones"
    code, told, err = say("compare", out, *(f.parent for f in out.glob("*/recipe.json")), "--where", "backbone=toy:1")
    assert code == 0, err


@pytest.mark.fault("two datasets of one name", "their results never share a folder")
@pytest.mark.parametrize(("one", "two"), [("photos", "photos"), ("a/b", "a_b"), ("a/photos", "b/photos")])
def test_results_of_two_datasets_never_share_a_folder(one, two, tmp_path, capsys, monkeypatch):
    say, out, found = Command(tmp_path / "home", capsys), tmp_path / "out", []
    for root, name in (("x", one), ("y", two)):
        photos(tmp_path / root / name, ["cat", "dog"], n=6)
        monkeypatch.chdir(tmp_path / root)
        code, told, err = say.run(f"folder:{name}", "toy:0", out, "--set", "select=none")
        assert code == 0, err
        found += [line for line in told.splitlines() if line.startswith("results: ")]
    assert len({*found}) == 2, f"one folder holds both: {found}"
