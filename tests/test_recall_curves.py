"""Recall curves of a search: what they are made of, and where they are shown."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

import adaptkit as ak
from adaptkit.report.errors.ranks import ranks_of
from adaptkit.report.recall import depth_of, of_ranking, recall_curve
from tests.small import Command

SMALL = {"dataset": "toy-pairs", "backbone": "toy:0", "shots": [2, 4], "seeds": [1, 2], "select": "none"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run of retrieval, its folder and its home."""
    home, out = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("search")
    return ak.run({**SMALL, "methods": ["zero-shot-retrieval", "composed-sum"]}, home=home, out=out), out, home


def test_a_curve_goes_through_the_metrics_of_the_record(ran):
    for result in ran[0]:
        curve = recall_curve([result], depth_of(ran[0].results))
        for k in (1, 5, 10):
            assert curve[k].mean == pytest.approx(result.metrics[f"recall@{k}"]), f"recall@{k} must be the record's"
        assert np.median(ranks_of(result.right[""])) == result.metrics["median_rank"], "ranks are those of the record"
        assert (np.diff([found.mean for found in curve.values()]) >= 0).all(), "recall never falls"


def test_curves_end_where_there_is_nothing_left_to_be_found(ran):
    one = ran[0][0]
    assert depth_of([replace(one, right={"": [1.0, 1 / 37]})]) == 37, "at the last rank"
    assert depth_of([replace(one, right={"": [1.0, 1 / 999]})]) == 50, "but at fifty items at most"
    assert depth_of([replace(one, right={"": [1.0]})]) == 10, "and with some width"


def test_a_run_draws_its_curves_and_says_which_shots_they_are_of(ran):
    shown = of_ranking(ran[0], "toy")
    assert set(shown.curves) == {"zero-shot-retrieval", "composed-sum"}, "a line for each method"
    assert any("the most, 4 shots" in line for line in shown.caption), f"of which shots; got {shown.caption}"
    assert any(line.startswith("bands: 95 %") for line in shown.caption), "and what the bands are"
    axes = ran[0].plot_recall().axes[0]
    assert axes.get_xlabel() == "K, items from the first on" and len(axes.get_lines()) == 2, "drawn as other lines are"


def test_what_was_not_searched_has_no_curve(ran, tmp_path):
    table = ak.run({"extends": "toy", "methods": ["zero-shot"], "shots": [2], "seeds": [1]}, home=ran[2], out=tmp_path)
    with pytest.raises(ValueError, match="recall must be of results of a search; got none"):
        table.plot_recall()


def test_a_page_has_every_curve(ran, capsys, tmp_path):
    page = tmp_path / "page.html"
    assert Command(ran[2], capsys)("compare", ran[1], "--out", page)[0] == 0, "a page is written"
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    curves = json.loads(data)["recall"]["toy-pairs"]
    assert {(m, k) for m in curves for k in curves[m]} == {(m, k) for m in curves for k in "24"}, "of each cell"
    points = curves["composed-sum"]["4"]
    assert len(points) >= 10 and all(len(point) == 2 for point in points), "a mean and an interval for each K"


def test_the_command_writes_the_picture_beside_the_records(ran, capsys, tmp_path):
    recipe = tmp_path / "search.yaml"
    recipe.write_text(json.dumps({**SMALL, "shots": [2], "methods": ["zero-shot-retrieval"]}))
    _, said, _ = Command(ran[2], capsys)("run", recipe, "--out", tmp_path / "out", "--quiet")
    assert "classes had" not in said, f"pairs to learn from are of no class; got {said}"
    assert f"plot: {tmp_path / 'out' / 'recall.svg'}" in said, said
    assert (tmp_path / "out" / "recall.svg").read_text().startswith("<?xml"), "it is there"


def test_queries_whose_item_comes_last_are_told_first_and_by_name(ran, capsys, tmp_path):
    told = ran[0].predictions("composed-sum", shots=4, seed=1)
    frame = told.frame()
    wrong = told.errors()
    assert (np.diff(frame["rank"][wrong]) <= 0).all() and frame["rank"][wrong[0]] > 1, "the latest rank comes first"
    assert (frame["rank"][frame.right.astype(bool)] == 1).all(), "ranks are those of the answers"
    first = told.rows(wrong[:1])[0]
    assert {first["predicted"], *first["others"], *first["label"]} <= {*told.names}, "items have their names"
    command = Command(ran[2], capsys)
    code, said, _ = command("errors", ran[1], "--method", "composed-sum", "--most", 2)
    assert code == 0 and "whose item is not found first" in said and "surest" not in said, said
    page = tmp_path / "page.html"
    command("errors", ran[1], "--out", page, "--thumbnails", 2)
    assert "Found late" in page.read_text() and "probability" not in page.read_text(), "a page says the same"
    command("compare", ran[1], "--out", page)
    assert "Found late" in page.read_text() and "Surest errors" not in page.read_text(), "so does that of a comparison"
    code, _, told = command("errors", ran[1], "--agreement")
    assert (code, told) == (
        2,
        "adaptkit: error: agreement must be of answers that are one class an image; got rankings of a gallery\n",
    ), "and rankings are not held against each other by kappa"


def test_a_caption_is_known_by_what_it_says():
    assert ak.Captions(["a cat asleep"]).where(0) == "a cat asleep", "a number says nothing"
