"""What methods take of memory: no tensor has three of a task's axes, or all pairs of queries."""

import logging
from dataclasses import replace

import pytest
import torch

from adaptkit import adapt, predict
from adaptkit.methods import graph
from adaptkit.runs import plugins
from benchmarks.growth import exponent, table
from benchmarks.ladder import Counted, Sizes, counted, made, task_of

LIVE = [n for n in plugins.table("methods") if any(not need.stored for s in (0, 1) for need in made(n).all_needs(s))]
BY_TEXT = "c-tpt cocoop coop cpl eco fpl-prompts gopro kgcoop mocoop plot pro-lip proda prograd rlcf ship tcp tpt upl"
BY_TEXT += " lo-co-op"
LONG = ["in-map"]  # ten thousands of small steps, whatever the sizes
TAPPED = ["ad-clip", "de-pt", "tai-dpt"]  # by what is inside the towers, whatever is stored
OTHER = [name for name, cls in plugins.table("methods").items() if "classification" not in cls.answers]
ON_FEATURES = [
    name for name in plugins.table("methods") if name not in {*LIVE, *BY_TEXT.split(), *LONG, *TAPPED, *OTHER}
]
"""Others have towers in the loop; what they take is what the towers take."""

ROOM = 1.6  # times the largest product of two axes: whole numbers and double precision of a few rows
LARGER = {
    "boost-adapter": "its cache holds the probabilities of all classes with each of a class's images",
    "dmn": "its memory holds up to 50 images of each class",
    "gl-mcm": "it has the probabilities of all classes for each patch of an image",
    "neg-label": "it has a list of words, whatever the task",
    "dota": "it has a covariance for each class",
    "oga": "it holds up to 8 images of each class",
    "perception-clip": "it has sentences of each class under 16 circumstances",
    "proker": "its kernel is between all views of the support",
    "proker-clap": "its kernel is between all views of the support",
    "tda": "its cache holds the probabilities of all classes with each of a class's images",
    "waffle-clip": "it has 30 sentences of each class",
    "x-more": "it finds 16 captions for each image",
    "zlap": "its graph has 9 links or more for each query, of two whole numbers",
    "zlap-inductive": "its graph has 9 links or more for each image, of two whole numbers",
}
FASTER = {"ecalp": "its graph gains links with every image, old ones among them"}


@pytest.mark.parametrize("name", ON_FEATURES)
def test_what_a_method_holds_grows_with_two_axes_at_most(name, monkeypatch):
    monkeypatch.setattr(graph.knn, "__defaults__", (2**10,))  # so that blocks are small beside these tasks
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    built = made(name)
    if "em-dirichlet" in name:
        built.set({"steps": 10})  # of many small ones, whatever the sizes
    sizes = Sizes(N=23 if built.scope == "stream" or name == "tps" else 151, C=19, S=38, D=23, val=0)
    task, queries = task_of(built, sizes)
    fitted, _ = counted(lambda: adapt(built, task))
    asked, _ = counted(lambda: predict(built, queries))
    seen = sizes.V if any(need.views or len(need.axes) > 1 for need in built.all_needs()) else 1
    queried, support = sizes.N * seen, sizes.S * sizes.V
    pairs = [queried * sizes.C, queried * sizes.D, sizes.N * sizes.S, support * sizes.C, support * sizes.D, sizes.D**2]
    for what, counts in (("fit", fitted), ("predict", asked)):
        size, shape = counts.largest
        small = size <= ROOM * 4 * max(*pairs, 5000)
        assert small or name in LARGER, f"{name}'s {what} must hold no tensor beyond two axes of {sizes}; got {shape}"
    _, more = task_of(built, replace(sizes, N=2 * sizes.N))
    twice, _ = counted(lambda: predict(built, more))
    growth = twice.peak / asked.peak
    assert growth < 2.2 or name in FASTER, f"{name} must hold twice as much for twice the queries; got {growth:.2f}"


@pytest.mark.parametrize("name", ["clipn", "perception-clip", "waffle-clip"])
def test_a_method_with_sentences_of_its_own_encodes_those_of_all_classes_at_once(name):
    asked = []
    for classes in (4, 8):
        task, _ = task_of(built := made(name), Sizes(C=classes, val=0))
        adapt(built, task)
        asked.append(task.backbone.asked)
    assert asked[0] == asked[1], f"{name} must encode as often for 8 classes as for 4; got {asked}"


def test_tensors_are_counted_to_the_byte_and_leave_when_they_are_gone():
    x = torch.zeros(10, 10)
    with Counted() as counts:
        y = x + 1
        for _ in range(3):
            y = y * 2
        del y
        z = x.T[:5]
    assert counts.largest == (400, (10, 10)), f"a tensor must count with its bytes; got {counts.largest}"
    assert counts.peak == 800, f"two are there while one is made of the other; got {counts.peak}"
    assert not counts.live and len(z) == 5, f"those that are gone must count no more, nor views; got {counts.live}"


def test_an_exponent_is_that_of_a_power():
    assert exponent([(10, 3.0), (100, 300.0), (1000, 30000.0)]) == pytest.approx(2.0), "of a square it is 2"


def test_the_table_of_growth_has_a_line_for_each_method(capsys):
    table(["zero-shot", "gda"], ["N", "D"], most=0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines] == ["method", "---", "`zero-shot`", "`gda`"], lines
