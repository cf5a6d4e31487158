"""``adaptkit export`` and ``adaptkit predict``: from a recipe to labels for pictures, as a user would."""

import csv
import json
import re

import pytest
import torch

from adaptkit import cli, load_classifier, predict
from adaptkit.testing import CLASSES, ToyImages


@pytest.fixture
def say(capsys, tmp_path):
    """Run a command in this process: its exit code, what it printed, and what it complained of."""

    def run(*argv):
        try:
            code = cli.main(["--home", str(tmp_path / "home"), *map(str, argv)])
        except SystemExit as left:
            code = left.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def model(say, tmp_path):
    """The folder of an exported classifier."""
    assert say("export", "toy", "--method", "gda", "--quiet", "--out", tmp_path / "model")[0] == 0, "it must export"
    return tmp_path / "model"


@pytest.fixture
def photos(tmp_path):
    """Ten toy test images as files, in two folders, one inside the other."""
    source = ToyImages("test", 10)
    for i in range(10):
        folder = tmp_path / "photos" / ("" if i < 5 else "deep")
        folder.mkdir(parents=True, exist_ok=True)
        source.image(i).save(folder / f"{i}.{('png', 'BMP')[i % 2]}")
    return tmp_path / "photos"


def rows(text):
    return [*csv.DictReader(text.splitlines())]


def test_an_exported_cell_is_the_cell_that_a_run_measures(say, tmp_path, toy):
    recipe = tmp_path / "x.yaml"
    recipe.write_text(
        "{dataset: toy, backbone: 'toy:0', shots: [1, 4], seeds: [2, 3], methods: [{gda: {views: 2}}, tda]}"
    )
    more = ("--set", "methods=[tda, {gda: {views: 2}}, {coop: {schedule: {steps: 3, warmup: 0}}}]")
    say("run", recipe, "--quiet", "--out", tmp_path / "out", "--shots", "4", "--seeds", "2", *more)
    for name in ("tda", "gda", "coop"):
        code, out, error = say("export", recipe, "--method", name, "--quiet", "--out", tmp_path / name, *more)
        assert (code, error) == (0, "") and "4-shot, seed 2" in out, f"most shots, first seed; got {out}{error}"
        config = json.loads((tmp_path / name / "config.json").read_text())
        measured = json.loads(next((tmp_path / "out").glob(f"{name}*.json")).read_text())
        assert config["tested"]["accuracy"] == pytest.approx(measured["metrics"]["accuracy"]), f"{name}: as in the run"
        assert config["options"] == measured["options"], "and with the same options"
        protocol = config["protocol"]
        assert (protocol["shots"], protocol["seed"], protocol["dataset"]) == (4, 2, "toy"), "it must say how"
        loaded = load_classifier(tmp_path / name)
        assert torch.equal(loaded(toy[1]), predict(loaded.method, toy[1])), "and it must answer"
    code, out, _ = say("export", recipe, "--method", "gda(views=2)", "--shots", 1, "--seed", 3, "--out", tmp_path / "b")
    assert code == 0 and "1-shot, seed 3" in out, "shots, seed and a row's full name can be asked for"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--method", "gdaa", "--out", "OUT"],
            r"--method must be one of zero-shot, gda; got 'gdaa'; did you mean 'gda'",
        ),
        (["--method", "gda", "--out", "OUT", "--shots", "1,4"], r"--shots: must be a whole number; got '1,4'"),
        (["--method", "gda"], r"required: --out"),
        (["--method", "gda", "--out", "."], r"must be saved to a new or empty folder; got '\.'"),
        (["--method", "gda", "--out", "OUT", "--shots", "0"], "shots must be a whole number from 1 to .*; got 0"),
        (["--method", "gda", "--out", "OUT", "--set", "methods=[gda, {gda: {views: 2}}]"], r"gda, gda\(views=2\); got"),
    ],
)
def test_a_wrong_export_is_an_error_of_one_line(say, tmp_path, words, message):
    code, out, error = say("export", "toy", *[tmp_path / "out" if word == "OUT" else word for word in words])
    assert code == 2 and out == "", f"the exit code must be 2; got {code}, {out}"
    assert re.search(message, error) and error.count("\n") == 1, f"and the error must say {message!r}; got {error}"


def test_pictures_are_labelled_in_order_with_probabilities(say, model, photos, toy):
    code, out, error = say("predict", model, photos / "4.png", photos)
    assert (code, error) == (0, ""), f"it must succeed quietly; got {error}"
    names = ["4.png", "0.png", "1.BMP", "2.png", "3.BMP", *(f"deep/{i}.{('png', 'BMP')[i % 2]}" for i in range(5, 10))]
    got = rows(out)
    assert [row["path"] for row in got] == [str(photos / name) for name in names], "files as given, folders sorted"
    p = load_classifier(model)(toy[1][:10]).double().softmax(-1)
    for row in got:
        i = int(re.search(r"(\d)\.\w+$", row["path"])[1])
        assert row["label"] == CLASSES[p[i].argmax()], "the label must be the classifier's"
        assert row["probability"] == f"{p[i].max():.6f}", "and the probability, as for the recipe's own image"
    assert list(got[0]) == ["path", "label", "probability"], "and there must be nothing else"


def test_more_labels_go_to_a_file(say, model, photos, tmp_path):
    file = tmp_path / "new" / "labels.csv"
    code, out, _ = say("predict", model, photos, "--top", 5, "--out", file)
    assert (code, out) == (0, ""), "what goes to a file must not be printed"
    for row in rows(file.read_text()):
        labels = [row["label"], *(row[f"label_{k}"] for k in range(2, 6))]
        shares = [float(row["probability"]), *(float(row[f"probability_{k}"]) for k in range(2, 6))]
        assert sorted(labels) == sorted(CLASSES) and shares == sorted(shares, reverse=True), "the likeliest first"
        assert sum(shares) == pytest.approx(1, abs=1e-5), "and all of them sum to one"


def test_an_unreadable_picture_is_named_and_the_others_are_labelled(say, model, photos):
    (photos / "bad.jpg").write_text("no image")
    (photos / "notes.txt").write_text("no image either, and not taken for one")
    code, out, error = say("predict", model, photos)
    assert code == 1 and len(rows(out)) == 10, "the others must be labelled, and the exit code tell"
    counted, bad = error.splitlines()
    assert "read 11 files; left out 1 .txt" in counted, f"what is no picture is counted; got {counted}"
    assert "bad.jpg" in bad, f"and what should be one is named, in one line; got {bad}"


def test_scores_are_printed_as_scores(say, photos, tmp_path, toy):
    say("export", "toy", "--method", "mcm", "--set", "methods=[mcm]", "--quiet", "--out", tmp_path / "mcm")
    code, out, _ = say("predict", tmp_path / "mcm", photos / "0.png")
    want = float(load_classifier(tmp_path / "mcm")(toy[1][:1]))
    assert code == 0 and rows(out) == [{"path": str(photos / "0.png"), "score": f"{want:.6f}"}], f"got {out}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MODEL", "PHOTOS/none.png"], r"an image must be a file that exists; got '.*none\.png'"),
        (["MODEL", "PHOTOS/empty"], r"a folder must hold images, .*; got 1 .txt in '.*empty'"),
        (["MODEL", "PHOTOS/empty/bad.txt"], r"images must be readable; got 1, of which none is"),
        (["MODEL", "PHOTOS", "--top", "6"], r"--top must be from 1 to 5, the number of classes; got 6"),
        (["PHOTOS", "PHOTOS"], r"a classifier's folder must hold .*config\.json"),
    ],
)
def test_a_wrong_request_for_labels_is_an_error_of_one_line(say, model, photos, words, message):
    (photos / "empty").mkdir()
    (photos / "empty" / "bad.txt").write_text("")
    code, out, error = say("predict", *[w.replace("MODEL", str(model)).replace("PHOTOS", str(photos)) for w in words])
    assert code == 2 and out == "", f"the exit code must be 2, and nothing printed; got {code}, {out}"
    assert re.search(message, error.splitlines()[-1]), f"the error must say {message!r}; got {error}"
