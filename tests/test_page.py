"""The page of a comparison: self-contained, complete, and safe whatever names say."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from adaptkit.report import runs
from adaptkit.report.comparison import AVERAGE, Comparison
from adaptkit.report.page import page as write_page
from tests.test_compare import QUOTE, cell, run, three

EVIL = "</script><script>alert(1)</script>{{script}}<!--"


class Parts(HTMLParser):
    """Every element of a page with its attributes, and the texts of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.scripts += [""] * (tag == "script")

    def handle_data(self, data):
        if data.strip() and self.elements[-1][0] == "script":
            self.scripts[-1] += data

    def data(self):
        return json.loads(self.scripts[0])


@pytest.fixture
def page(tmp_path):
    classes = {"": [("cat", 0.5), (EVIL, None)]}
    names = ["gda(views=4)", "zero-shot", EVIL]
    results = [r for m in names for k in (1, 4) for r in three(m, 0.5, shots=k, classes=classes, seconds={"fit": 2.0})]
    results = [replace(r, metrics={**r.metrics, "nll": 1.0}, parameters=7) for r in results]
    a = run(tmp_path / "a", results, published=[{**QUOTE, "source": EVIL}])
    b = run(tmp_path / "b", [cell(m, s, 0.4, dataset="b", metrics={"nll": 2.0}) for m in names for s in (1, 2)])
    return write_page(Comparison(runs.read_runs([a, b])))


def test_it_needs_nothing_else(page):
    parts = Parts(page)
    addresses = [v for _, attrs in parts.elements for k, v in attrs.items() if k in ("src", "href", "action")]
    assert addresses == ["data:,"], f"no address but an empty icon; got {addresses}"
    allowed = {"http://www.w3.org/2000/svg"}  # a name of SVG, not an address that anything asks for
    assert set(re.findall(r"https?://[^\s\"'`)]+", page)) <= allowed, "and none in a script or a style"
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|import\(", page), "nothing is loaded"
    policy = next(attrs["content"] for _, attrs in parts.elements if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'"), "the browser is told to load nothing"


def test_names_are_never_markup(page):
    parts = Parts(page)
    scripts = [attrs for tag, attrs in parts.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}], f"its own two scripts only; got {scripts}"
    assert "alert(1)" not in parts.scripts[1] and "<!--" not in page, "and no name in the one that runs"
    assert EVIL in [m["label"] for m in parts.data()["methods"]], "while the data has the name as it is"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write", parts.scripts[1]), "only text is added"
    assert page.count("{{") == json.dumps(parts.data()).count("{{"), "every place in the template is filled, once"


def test_it_has_every_number(page):
    data = Parts(page).data()
    assert [m["name"] for m in data["methods"]][:2] == ["gda", "zero-shot"], "all methods, in order"
    assert set(data["metrics"]) == {"accuracy", "nll"} and data["metric"] == "accuracy", "all metrics"
    assert data["datasets"] == {AVERAGE: "average of 2 datasets", "toy": "toy", "b": "b"}, "all datasets"
    accuracy = data["metrics"]["accuracy"]
    keys = {(c["dataset"], c["shots"], c["method"]) for c in accuracy["cells"]}
    expected = {
        (d, k, m["label"]) for d, k in (("toy", 1), ("toy", 4), ("b", 4), (AVERAGE, 4)) for m in data["methods"]
    }
    assert keys == expected, "all cells, and averages where both datasets have one"
    one = next(
        c for c in accuracy["cells"] if c["method"] == "gda(views=4)" and c["dataset"] == "toy" and c["shots"] == 4
    )
    assert one["mean"] == 0.5 and one["half"] == pytest.approx(0.0248, abs=1e-4), "mean and interval"
    assert one["published"] == 0.71 and accuracy["sources"] == [EVIL], "what is published, and where"
    assert data["classes"]["toy"][""]["shares"]["zero-shot"]["4"] == [0.5, None], "classes, none where it has no image"
    cost = next(c for c in data["costs"] if c["method"] == "zero-shot" and c["dataset"] == "toy" and c["shots"] == 1)
    assert (cost["fit"], cost["trained"]) == (2.0, 7), "and cost"
    assert not data["metrics"]["nll"]["percent"] and data["metrics"]["nll"]["falling"], "each metric in its unit"


def test_what_the_script_asks_for_is_there(page):
    parts = Parts(page)
    data, script = parts.data(), parts.scripts[1]
    there = {attrs["id"] for _, attrs in parts.elements if "id" in attrs} | {"choose"}  # its own: choose-metric, ...
    asked = set(re.findall(r"[`\"]#([a-z-]{4,})\b", script)) | set(re.findall(r'getElementById\("(\w+)"', script))
    assert {"data", "controls", "curves"} <= asked <= there, f"elements that nobody wrote: {asked - there}"
    assert set(re.findall(r"\bD\.(\w+)", script)) == set(data), "everything at the top is read, and nothing else"
    numbers = {*data["costs"][0], *data["metrics"]["accuracy"]["cells"][0]}
    read = set(re.findall(r"\bc\.(\w+)", script))
    assert {"mean", "half", "mark", "trained"} <= read <= numbers, f"fields that nobody wrote: {read - numbers}"
    used = set(re.findall(r"metric\(\)\.(\w+)", script))
    assert used == set(data["metrics"]["accuracy"]), "a metric's fields too"
