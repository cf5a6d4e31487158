"""What stands behind a number: predictions that are kept, and what is counted, shown and written of them."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score, precision_recall_fscore_support

from adaptkit.report.errors.agreement import agreement
from adaptkit.report.errors.counts import class_scores, confusion_counts, macro_f1, most_confused, reliability
from adaptkit.report.errors.sections import (
    agreement_section,
    answers_sections,
    classes_section,
    confusion_section,
    reliability_section,
)

ODD = ["<script>alert(1)</script>", "a \"quoted\" 'name'", "Käse 🧀 & Brot", "turn\u202earound"]


def drawn(classes, count, seed=0, share=0.6):
    """Labels and answers of which about a share is right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return labels, np.where(rng.random(count) < share, labels, rng.integers(0, classes, count))


def test_counts_are_those_of_scikit_learn():
    labels, told = drawn(7, 500)
    counts = confusion_counts(labels, told, 7)
    assert (counts == confusion_matrix(labels, told)).all(), "true classes must be in rows"
    found = class_scores(counts, [str(c) for c in range(7)])
    for i, name in enumerate(("precision", "recall", "f1")):
        want = precision_recall_fscore_support(labels, told)[i]
        assert np.allclose([getattr(scores, name) for scores in found], want), f"{name} must be that of scikit-learn"
    assert macro_f1(counts) == pytest.approx(f1_score(labels, told, average="macro")), "so must the mean"


def test_a_class_without_images_or_answers_counts_for_nothing():
    counts = confusion_counts([0, 0, -1], [0, 1, 3], 4)
    never, only_answered = class_scores(counts, list("abcd"))[2:0:-1]
    assert (never.f1, never.precision, never.recall) == (None, None, None), "of nothing there is no share"
    assert (only_answered.recall, only_answered.precision) == (None, 0.0), "what was answered in vain was answered"
    assert macro_f1(counts) == pytest.approx(f1_score([0, 0], [0, 1], average="macro", zero_division=0)), "as elsewhere"
    assert macro_f1(confusion_counts([], [], 4)) is None, "nor of no images"


def test_a_number_of_no_class_is_refused():
    with pytest.raises(ValueError, match="answers must be numbers of classes, from 0 to 1; got 2"):
        confusion_counts([0, 1], [2, 1], 2)
    with pytest.raises(ValueError, match="as many; got 2 and 1"):
        confusion_counts([0, 1], [1], 2)


def test_pairs_are_in_the_order_of_their_errors():
    counts = np.array([[5, 3, 0], [1, 9, 0], [0, 2, 0]])
    found = [(p.label, p.predicted, p.count, p.share) for p in most_confused(counts, "abc", 2)]
    assert found == [("a", "b", 3, 3 / 8), ("c", "b", 2, 1.0)], "the diagonal is no error"
    assert most_confused(np.diag([3, 2]), "ab") == [], "and where nothing was confused there is none"


def test_the_calibration_error_is_that_of_the_metric():
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    sure = np.append(np.random.default_rng(3).random(400).astype(np.float32), np.ones(50, np.float32))
    right = np.random.default_rng(4).random(450) < sure
    found = reliability(sure, right)
    want = binary_calibration_error(torch.from_numpy(sure), torch.from_numpy(right).long(), n_bins=15)
    assert found.ece == pytest.approx(float(want), abs=1e-6), "a page must not contradict its table"
    assert found.counts.sum() == 450, "certainty is shown with the last bin"


def test_kappa_is_that_of_scikit_learn():
    labels, one = drawn(5, 300)
    two = drawn(5, 300, seed=1)[1]
    found = agreement({"one": one, "two": two, "same": one}, labels)
    assert found.kappa[0, 1] == pytest.approx(cohen_kappa_score(one, two)), "kappa must be Cohen's"
    assert found.kappa[0, 2] == 1.0, "equal answers agree"
    right = [one == labels, two == labels]
    assert found.both_right[0, 1] == pytest.approx((right[0] & right[1]).mean()), "images that both answer right"
    assert found.one_right[1, 0] == pytest.approx((right[1] & ~right[0]).mean()), "the row's method is the right one"
    assert (found.hard == np.flatnonzero(~right[0] & ~right[1])).all(), "images that nobody answers right"
    constant = agreement({"one": [1, 1], "two": [1, 1]}, [0, 1])
    assert constant.kappa.tolist() == [[1, 1], [1, 1]], "one class alone is agreement, not a division by zero"


def test_names_of_strangers_stay_text_in_sections():
    labels, told = drawn(4, 60)
    shown = confusion_section(labels, told, ODD) + classes_section(labels, told, ODD)
    shown += agreement_section(agreement({"<b>": told, "b": labels}, labels), ["<b>", "b"])
    assert "<script" not in shown and "<b>" not in shown, "a name must not become markup"
    assert "\u202e" not in shown, "nor turn the text around it"
    assert "Käse 🧀 &amp; Brot" in shown, "what can be read is read"


def test_many_classes_are_told_by_pairs():
    labels, told = drawn(1000, 3000)
    names = [f"class {i}" for i in range(1000)]
    shown = confusion_section(labels, told, names)
    assert "matrix" not in shown and shown.count("<tr>") == 21, "a head and twenty pairs; no matrix of a million cells"
    assert len(classes_section(labels, told, names)) < 60_000, "a table of classes must be one that can be read"


def test_sections_of_little_say_so():
    assert "no labelled images" in confusion_section([], [], ["a", "b"]), "no images"
    assert "no labelled images" in classes_section([-1], [0], ["a", "b"]), "no labels"
    assert "no labelled images" in reliability_section([], []), "nothing to trust"
    one = answers_sections([0], np.array([[1.0, 0.0]]), ["a", "b"])
    assert one.count('class="errors"') == 3 and "nan" not in one.lower(), "one image is enough for numbers"


BASE = {"dataset": "toy", "backbone": "toy:0", "shots": [2], "seeds": [1], "methods": ["zero-shot", "gda"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Features that the runs of this file share."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def ran(home, tmp_path):
    """Run a recipe from Python, into a folder of its own."""
    import adaptkit as ak

    return lambda folder="out", **changes: ak.run({**BASE, **changes}, home=home, out=tmp_path / folder)


def test_predictions_are_kept_by_default_and_are_what_was_judged(ran, tmp_path):
    table = ran(domains=["noisy"], seeds=[1, 2])
    for result in table:
        for test in ("", "noisy"):
            told = table.predictions(result.method, seed=result.seed, test=test)
            right = "".join("01"[int(r)] for r in told.right)
            assert right == result.right[test], "they must be what was judged"
            assert told.macro_f1 == pytest.approx(result.metrics[f"{test}/macro_f1".lstrip("/")]), "so must the mean"
    assert len([*(tmp_path / "out" / "images").iterdir()]) == 2, "cells share the list of a set's images"
    assert len([*(tmp_path / "out" / "predictions").iterdir()]) == len(table), "one file for each record"


def test_probabilities_are_those_of_the_logits(ran, tmp_path):
    from safetensors.torch import load_file

    table = ran(methods=["gda"], keep="logits")
    (path,) = (tmp_path / "out").glob("*.safetensors")
    likely = load_file(path)["own"].softmax(-1).sort(descending=True)
    told = table.predictions()
    assert np.allclose(told.confidence, likely.values[:, 0], atol=1e-6), "the confidence is the largest probability"
    assert (told.columns["others"] == likely.indices[:, 1:].numpy()).all(), "the others follow in their order"
    assert np.allclose(told.columns["likely"], likely.values[:, 1:], atol=1e-3), "with theirs"


def test_what_is_kept_is_no_part_of_a_protocol(ran, tmp_path):
    some, more, none = ran(), ran("more", keep_answers=True), ran("none", keep="none")
    assert {r.protocol_hash for t in (some, more, none) for r in t} == {some[0].protocol_hash}, "numbers are the same"
    assert [r.tag for r in some] == [r.tag for r in none], "so are the cells"
    assert [r.metrics for r in some] == [r.metrics for r in none], "and what they answered"
    assert len([*(tmp_path / "more").glob("*.safetensors")]) == 2, "the old key keeps logits"
    assert more.predictions("gda").title and not (tmp_path / "none" / "predictions").exists(), "and predictions, too"
    with pytest.raises(ValueError, match="must have been kept beside its record; got none; run the recipe again"):
        none.predictions("gda")
    with pytest.raises(ValueError, match="keep must be one of none, predictions, logits"):
        ran("odd", keep="all")


def test_runs_of_before_are_read_as_they_are(ran, tmp_path):
    import shutil

    import adaptkit as ak

    ran()
    for folder in ("predictions", "images"):
        shutil.rmtree(tmp_path / "out" / folder)
    table = ak.read_results(tmp_path / "out")
    assert len(table.frame()), "numbers need no predictions"
    with pytest.raises(ValueError, match="got none; run the recipe again"):
        table.predictions("gda")


def test_a_record_and_its_predictions_are_held_together(ran, tmp_path):
    import adaptkit as ak

    ran()
    one, two = sorted((tmp_path / "out" / "predictions").iterdir())
    whole = one.read_bytes()
    read = lambda name: ak.read_results(tmp_path / "out").predictions(name)  # noqa: E731
    one.write_bytes(two.read_bytes())
    with pytest.raises(ValueError, match="it is not that of the record beside it"):
        read("gda")
    one.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="its numbers were changed after they were written"):
        read("gda")
    one.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="predictions must be as a run writes them"):
        read("gda")
    one.write_bytes(whole)
    (images,) = (tmp_path / "out" / "images").iterdir()
    images.write_text(images.read_text().replace('"cat"', '"cow"'))
    with pytest.raises(ValueError, match="was changed after it was written"):
        read("gda")


def test_new_classes_streams_and_sequences_are_kept_as_they_were_asked(ran):
    table = ran(classes="base", methods=["zero-shot"])
    told = table.predictions(test="new")
    assert list(told.names) == ["fox", "hen"], "new classes have their own names"
    assert set(told.labels.tolist()) == {0, 1}, "and labels among these"
    told = ran("stream", methods=["tda"], stream="class-correlated").predictions()
    assert sorted(told.columns["met"].tolist()) == [*range(60)], "a stream's order is kept"
    table = ran("steps", methods=["zero-shot"], sequence=2)
    assert [len(r.right[""]) for r in table] == [36, 60], "two steps"
    assert len(table.predictions()) == 60, "the last step's answers are asked for first"


def test_scores_are_kept_where_answers_are_scores(ran):
    table = ran(methods=["mcm"], far=["digits"])
    told = table.predictions()
    assert set(told.columns) == {"score"} and len(told.errors()) == 0, "there is no class that could be wrong"
    assert list(told.frame().columns) == ["image", "label", "score"], "a frame has what there is"
    assert set(table.predictions(test="digits").labels.tolist()) == {-1}, "images from outside have no class"
    with pytest.raises(ValueError, match="answers must be about classes; got scores"):
        told.confusion()
    from adaptkit.report.errors.written import plain_answers

    plain = plain_answers(told, 2)
    assert len(plain["scores"]) == 2 and "errors" not in plain, "a score is no error"
    assert "errors" not in told._repr_html_().partition("</style>")[2], "nothing is shown that is not there"


def test_several_labels_an_image_are_kept_as_such():
    import torch

    from adaptkit.methods.evaluation.kinds import evaluation

    answers = torch.tensor([[2.0, -1.0, 3.0], [-1.0, -2.0, -3.0]])
    kind = evaluation("multi-label")
    kept = kind.kept_of(kind.condense(answers, torch.tensor([[1, 0, 1], [0, 1, 0]])))
    assert kept["predicted"].tolist() == [2, 0] and kept["others"].tolist() == [[0, 1], [1, 2]], "the likeliest first"
    assert torch.allclose(kept["confidence"], answers.max(-1).values.sigmoid()), "each label has its own probability"


def test_comparisons_in_memory_know_their_predictions():
    import adaptkit as ak

    task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    table = ak.compare(task, test, ["zero-shot", {"gda": {"alpha": 2.0}}])
    told = table.predictions("gda")
    assert told.frame().right.mean() == pytest.approx(table[1].metrics["accuracy"]), "as in the table"
    found = table.agreement()
    assert found.kappa.shape == (2, 2) and found.kappa[0, 0] == 1, "and methods can be held against each other"
    with pytest.raises(ValueError, match=r"method must be one of zero-shot, gda\(alpha=2.0\); got ''"):
        table.predictions()
    with pytest.raises(ValueError, match="seed must be one of 0; got 7"):
        table.predictions("gda", seed=7)
    assert "data:image/webp" in told.show_errors(3).html, "pictures come from the dataset"


def test_features_without_pictures_are_shown_by_number():
    import torch

    import adaptkit as ak

    x, y = torch.randn(8, 4), torch.arange(8) % 2
    task = ak.Task.from_arrays(support=(x, y), text=torch.randn(2, 4), classnames=["<b>", "ü"])
    test = ak.Images.from_arrays(torch.randn(30, 4), torch.arange(30) % 2)
    told = ak.compare(task, test, ["gda"]).predictions()
    assert told.frame().image.tolist() == [*range(30)], "an array's images are rows"
    shown = told.show_errors(5).html
    assert "<img" not in shown and "<b>" not in shown and "&lt;b&gt;" in shown, "names alone, and as text"


def test_plots_and_frames_show_themselves(ran):
    told = ran(methods=["gda"]).predictions()
    for figure in (told.plot_confusion(), told.plot_reliability()):
        assert figure._repr_png_().startswith(b"\x89PNG"), "a figure is a picture in a notebook"
    frame = told.confusion()
    assert frame.to_numpy().sum() == 60 and list(frame.columns) == list(told.names), "true in rows, answers in columns"
    assert [s.name for s in told.per_class()] == list(told.names), "each class has its scores"


def test_pictures_that_moved_are_left_out_and_the_rest_is_told(ran, tmp_path):
    from tests.small import photos

    root = photos(tmp_path / "photos", ["Käse", "b <i>"], 20)
    table = ran(dataset=f"folder:{root}", methods=["zero-shot"])
    told = table.predictions()
    place = told.errors()
    assert len(place), "a random tower must be wrong about something"
    assert told.show_errors(4).html.count("data:image/webp") >= len(place[:4]), "each error has its picture"
    root.rename(tmp_path / "elsewhere")
    from adaptkit.report.errors.reopening import reopened_workspace

    reopened_workspace.cache_clear()
    gone = table.predictions().show_errors(4).html
    assert "no pictures: " in gone and "&lt;i&gt;" in gone, "the errors are told without pictures, and why"
    table.keeper = type(table.keeper)(table.keeper.folders, table.keeper.home, f"folder:{tmp_path / 'elsewhere'}")
    assert "data:image/webp" in table.predictions().show_errors(4).html, "pictures are found where they are now"


def test_a_recipe_runs_from_python_in_every_form(home, tmp_path):
    import adaptkit as ak
    from adaptkit.runs.recipe import read_recipe

    how = {"only": ["gda"], "shots": [2], "seeds": [1], "home": home}
    forms = "toy", {"extends": "toy"}, read_recipe("toy")
    tables = [ak.run(form, out=tmp_path / str(i), **how) for i, form in enumerate(forms)]
    assert len({(len(t), t[0].tag, t[0].metrics["accuracy"]) for t in tables}) == 1, "one cell, the same for all"
    with pytest.raises(ValueError, match="a method of this recipe must be one of zero-shot, gda; got 'gdaa'"):
        ak.run({"extends": "toy"}, only=["gdaa"], home=home)


@pytest.fixture
def command(home, capsys):
    from tests.small import Command

    return Command(home, capsys)


def test_the_command_tells_and_writes_what_went_wrong(ran, command, tmp_path):
    import csv
    import json

    ran()
    run, files = tmp_path / "out", [tmp_path / name for name in ("e.csv", "e.html", "c.csv")]
    code, said, _ = command("errors", run, "--method", "gda")
    assert code == 0 and "gda, 2 shots, seed 1: 60 images" in said and "surest errors" in said, said
    code, said, _ = command("errors", run, "--out", files[0], "--out", files[1], "--confusion", files[2], "--json")
    plain = json.loads(said)
    rows = [*csv.DictReader(files[0].read_text().splitlines())]
    assert len(rows) == plain["wrong"] and {r["right"] for r in rows} == {"False"}, "a line for each error"
    matrix = [*csv.reader(files[2].read_text().splitlines())]
    assert sum(int(n) for row in matrix[1:] for n in row[1:]) == 60, "the matrix counts every image"
    page = files[1].read_text()
    assert "<img" not in page and "http" not in page.replace("http-equiv", ""), "a page without pictures or network"
    assert command("errors", run, "--out", files[1], "--thumbnails", 3)[0] == 0, "pictures come on request"
    assert files[1].read_text().count('<ul class="pictures"><li>') == 1, "in the page itself"
    code, said, _ = command("errors", run, "--agreement", "--json")
    assert json.loads(said)["methods"] == ["zero-shot", "gda"], "and methods are held against each other"
    assert json.loads(said)["about"] == "toy, 2 shots, seed 1", "it says of which cell"
    assert command("errors", run, "--agreement", "--shots", 2)[1].startswith("toy, 2 shots, seed 1\n"), "in text, too"
    command("errors", run, "--agreement", "--out", files[1])
    assert "toy, 2 shots, seed 1: Cohen" in files[1].read_text(), "and on a page"
    command("errors", run, "--out", files[0], "--all")
    assert len(files[0].read_text().splitlines()) == 61, "or a line for every image"


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--method", "gdaa"], "method must be one of zero-shot, gda; got 'gdaa'; did you mean 'gda'?"),
        (["--shots", "3"], "shots must be one of 2; got 3"),
        (["--test", "new"], "test must be one of ''; got 'new'"),
        (["--out", "x.txt"], "the suffix of --out x.txt must be one of .csv, .html; got '.txt'"),
        (["--most", "-1"], "--most must be 0 or more; got -1"),
    ],
    ids=["method", "shots", "test", "suffix", "number"],
)
def test_the_command_says_what_is_wrong_in_one_line(words, wrong, ran, command, tmp_path):
    ran()
    code, said, told = command("errors", tmp_path / "out", *words)
    assert (code, said) == (2, ""), "a wrong request prints no result"
    assert wrong in told and told.count("\n") == 1, told


def test_a_page_of_a_comparison_has_the_errors_of_every_cell(ran, command, tmp_path):
    import re

    ran(shots=[1, 2], seeds=[1, 2])
    out = tmp_path / "page.html"
    assert command("compare", tmp_path / "out", "--out", out)[0] == 0, "the page is written"
    page = out.read_text()
    cells = re.findall(r'<template data-dataset="toy" data-method="(.*?)" data-shots="(\d)">', page)
    assert sorted(cells) == [(m, k) for m in ("", "gda", "zero-shot") for k in "12"], "each method, and their agreement"
    assert "data:image" not in page, "pictures stand in it on request alone"
    command("compare", tmp_path / "out", "--out", out, "--thumbnails", 2)
    assert 3 <= out.read_text().count("data:image/webp") <= 6, "of the best method's errors, with their neighbours"


def test_agreement_is_of_cells_that_all_methods_have(ran):
    table = ran(methods=["zero-shot", "gda", "tip-adapter"], shots=[1, 2, 4], seeds=[1, 2])
    gone = {("gda", 4, 1), ("gda", 4, 2), ("tip-adapter", 2, 1)}
    table.results[:] = [r for r in table if (r.method, r.shots, r.seed) not in gone]
    found = table.agreement()
    assert found.title == "toy, 2 shots, seed 2", "the most shots and the first seed that all have"
    assert table.agreement(shots=1).title == "toy, 1 shot, seed 1", "or those that are asked for"
    with pytest.raises(ValueError, match="shots must be one of 1, 2; got 4"):
        table.agreement(shots=4)
    with pytest.raises(ValueError, match="dataset must be one of toy; got 'toi'; did you mean 'toy'"):
        table.agreement(dataset="toi")
    table.results[:] = [r for r in table if (r.method, r.shots) not in {("gda", 1), ("tip-adapter", 2)}]
    with pytest.raises(ValueError, match="methods must have a number of shots that all have; got none"):
        table.agreement()


def test_damaged_predictions_leave_their_cell_out_of_a_page(ran, command, tmp_path):
    ran(seeds=[1, 2])
    out, kept = tmp_path / "page.html", tmp_path / "out" / "predictions"
    gda, _ = sorted(kept.glob("gda*"))
    whole = gda.read_bytes()
    gda.write_bytes(whole[:-9])
    code, _, told = command("compare", tmp_path / "out", "--out", out)
    assert code == 0 and told.startswith("adaptkit: warning: predictions must be as a run writes them"), told
    assert told.count("\n") == 1 and gda.name in told, "a line names the file"
    page = out.read_text()
    assert page.count("predictions that cannot be read: of seed ") == 1, "the page says which are left out"
    assert page.count("<template") == 3 and str(tmp_path) not in page, "and has all others"
    for file in kept.glob("gda*"):
        file.write_bytes(b"")
    command("compare", tmp_path / "out", "--out", out)
    page = out.read_text()
    assert "predictions that cannot be read: of seeds 1, 2" in page, "of a method without any, too"
    assert page.count("<template") == 2, "which then agrees with none"


def test_a_page_of_runs_without_predictions_is_as_before(ran, command, tmp_path):
    ran(keep="none")
    out = tmp_path / "page.html"
    assert command("compare", tmp_path / "out", "--out", out)[0] == 0, "numbers need no predictions"
    assert "<template" not in out.read_text(), "and nothing is said of errors"


@pytest.mark.parametrize(
    ("columns", "asked", "wrong"),
    [
        ({"predicted": np.full(60, 9, np.uint8)}, {}, "it must answer with one of 5 classes"),
        ({"predicted": np.zeros(3, np.uint8)}, {}, "it must answer each of 60 images"),
        ({"predicted": np.full(60, 0.5, np.float32)}, {}, "it must answer with one of 5 classes"),
        ({"confidence": np.full(60, np.nan, np.float32)}, {}, "confidence must be finite"),
        ({}, {"names": [1, 2, 3, 4, 5]}, "names must be text"),
        ({}, {"labels": [*range(60)]}, "it must answer with one of 5 classes"),
        ({}, {"labels": [[0], *[0] * 59]}, "labels numbers or lists of them"),
    ],
    ids=["class", "count", "half a class", "not a number", "names", "labels", "mixed labels"],
)
def test_predictions_of_a_stranger_are_held_to_their_images(columns, asked, wrong, ran, tmp_path):
    import json

    from safetensors.numpy import load, save

    from adaptkit.io.files import canonical, digest
    from adaptkit.runs.told import content_digest

    table = ran(methods=["gda"])
    (path,), (images,) = ([*(tmp_path / "out" / name).iterdir()] for name in ("predictions", "images"))
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about, arrays = json.loads(header["__metadata__"]["about"]), load(data)
    arrays |= {f"0.{name}": column for name, column in columns.items()}
    listed = canonical({**json.loads(images.read_text()), **asked})
    images.with_name(f"{digest(listed)}.json").write_bytes(listed)
    about["sets"][0]["images"], about["content"] = digest(listed), content_digest(arrays)
    path.write_bytes(save(arrays, {"about": canonical(about).decode()}))
    with pytest.raises(ValueError, match=wrong):
        table.predictions("gda")


def test_an_image_without_labels_is_not_answered_wrong():
    from adaptkit.report.errors.predictions import Predictions
    from adaptkit.runs.told import Told

    asked = {
        "kind": "multi-label",
        "names": ["a", "b"],
        "images": [0, 1, 2],
        "digests": [],
        "labels": [[], [0, 1], [1]],
    }
    columns = {"predicted": np.array([0, 1, 0]), "confidence": np.ones(3), "others": np.array([[1], [0], [1]])}
    told = Predictions(Told("", asked, columns))
    assert told.errors().tolist() == [2], "one of several labels is right, and of none there is no right one"
    assert [row["right"] for row in told.rows()] == [None, True, False], "a frame says the same"
    with pytest.raises(ValueError, match="confusion must be of one class an image; got multi-label"):
        told.per_class()
    assert "Surest errors" in told.sections() and "Confusion" not in told.sections(), "what can be told is told"
