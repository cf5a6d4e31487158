"""Results on their own: metrics in their units, as pandas, as a picture; and the schema of a record."""

import json
import sys
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest

from adaptkit import cli
from adaptkit.report.drawing import OKABE_ITO, spread_apart
from adaptkit.report.plot import as_picture, of_table
from adaptkit.report.runs import read_results
from adaptkit.report.scores import option_notes, short_names
from adaptkit.report.table import Table, spread_text
from adaptkit.runs import results
from adaptkit.runs.results import Result

SCHEMA = json.loads(Path(results.__file__).with_name("result.schema.json").read_text())


def result(method, seed, dataset="toy", shots=4, **metrics):
    return Result(method=method, shots=shots, seed=seed, protocol={"dataset": dataset}, metrics=metrics)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a run of the toy recipe."""
    folder = tmp_path_factory.mktemp("run")
    command = ["run", "toy", "--quiet", "--home", folder / "home", "--out", folder / "out", "--shots", "1,2"]
    assert cli.main([str(word) for word in command]) == 0, "the recipe must run"
    return folder / "out"


def test_the_schema_has_the_fields_of_a_result_and_no_others():
    names = {f.name for f in fields(Result)} | {"protocol_hash", "digest"}
    assert set(SCHEMA["properties"]) == names, "result.schema.json must have each field of Result"
    assert SCHEMA["required"] == [f.name for f in fields(Result) if f.default is f.default_factory], "required ones"


def test_a_record_that_a_run_wrote_is_as_the_schema_says(written):
    checker = jsonschema.Draft202012Validator(SCHEMA)
    checker.check_schema(SCHEMA)
    paths = [path for path in written.glob("*.json") if path.name != "recipe.json"]
    assert len(paths) == 8, "two methods, two numbers of shots, two seeds"
    for path in paths:
        record = json.loads(path.read_text())
        checker.validate(record)
        assert set(record) == set(SCHEMA["properties"]), "a record leaves nothing out"
        for name in record.keys() - {"protocol", "options", "oracle", "images_per_class"}:
            with pytest.raises(jsonschema.ValidationError):
                checker.validate({**record, name: [1]})


def test_results_load_from_folders_into_pandas_in_one_call(written):
    frame = read_results(written).frame()
    table = read_results(str(written))
    assert len(frame) == sum(len(r.metrics) for r in table) and len(table) == 8, "a row for each cell and metric"
    one = frame[(frame.method == "gda") & (frame.shots == 2) & (frame.seed == 1) & (frame.metric == "nll")]
    expected = next(r for r in table if (r.method, r.shots, r.seed) == ("gda", 2, 1))
    assert one.value.tolist() == [expected.metrics["nll"]], "the number of the record, unrounded"
    assert set(frame.dataset) == {"toy"} and set(frame.protocol) == {expected.protocol_hash}, "with its protocol"
    assert frame.fit.tolist()[0] == table[0].seconds["fit"], "and its cost"


def test_without_pandas_or_matplotlib_one_line_says_what_to_install(monkeypatch):
    table = Table([result("gda", 1, accuracy=0.5)])
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"^frame\(\) needs pandas; pip install pandas$"):
        table.frame()
    with pytest.raises(ImportError, match=r"^a plot needs matplotlib; pip install 'adaptkit-vlm\[demo\]'$"):
        table.plot()


def test_metrics_are_shown_in_their_units():
    rows = [result("gda", s, accuracy=0.5, nll=1.25, ece=0.031, **{"far/fpr95": 0.4, "line/nll": 2.0}) for s in (1, 2)]
    shown = {metric: spread_text(rows, metric) for metric in rows[0].metrics}
    assert shown == {
        "accuracy": "50.0 ± 0.0",
        "nll": "1.250 ± 0.000",
        "ece": "0.031 ± 0.000",
        "far/fpr95": "40.0 ± 0.0",
        "line/nll": "2.000 ± 0.000",
    }, "shares in percent, nats and calibration errors as they are, whatever the test set"
    both = [result("gda", s, **{"accuracy": 0.9, "new/accuracy": 0.5}) for s in (1, 2)]
    assert spread_text(both, "harmonic") == "64.3", "the harmonic mean of base-to-new, without a spread"
    assert spread_text(both, "auroc") == "-", "no result, no number"


def test_several_datasets_make_several_tables():
    table = Table([result("gda", 1, accuracy=0.5), result("gda", 1, dataset="<b>", accuracy=0.75)])
    first, second = table.text().split("\n\n<b>: accuracy, %\n\n")
    assert first.startswith("toy: accuracy, %") and "50.0" in first and "75.0" in second, "one after the other"
    shown = table._repr_html_()
    assert shown.count("<table>") == 2 and "&lt;b&gt;" in shown and "<b>" not in shown, "in notebooks too, escaped"
    assert list(table.by_dataset()) == ["toy", "<b>"], "and by name"


def test_a_picture_has_a_line_for_each_method_with_its_name_where_it_ends():
    pytest.importorskip("matplotlib")
    many = [result(m, s, shots=k, nll=n * k / 8) for m, n in (("gda", 2), ("tip", 1)) for k in (1, 4) for s in (1, 2)]
    axes = Table(many, "nll").plot("title").axes[0]
    lines = [line for line in axes.lines if line.get_label()[0] != "_"]
    assert [line.get_label() for line in lines] == ["tip", "gda"], "one line each, the best first: of nll the smaller"
    assert lines[0].get_xydata().tolist() == [[0.0, 0.125], [2.0, 0.5]], "shots by logarithm, nats as they are"
    assert axes.get_ylabel() == "nll" and axes.get_title(loc="left") == "title", "named"
    assert axes.get_xlabel() == "labelled images per class", "with what is counted"
    assert [text.get_text() for text in axes.texts] == ["tip", "gda"] and axes.get_legend() is None, "names at the ends"
    shares = [result("tip", s, shots=k, accuracy=0.5) for k in (1, 4) for s in (1, 2)]
    assert Table(shares).plot().axes[0].get_ylabel() == "accuracy (%)", "with its unit"


def test_names_in_a_picture_lie_apart_in_their_order_and_inside():
    for wanted in ([3.0] * 9, [0.0, 0.1, 9.0, 9.9, 10.0], [5.0], list(range(11)), [10.0] * 3 + [0.0] * 3):
        places = spread_apart(wanted, 1.0, 0.0, 10.0)
        order = sorted(range(len(wanted)), key=lambda i: places[i])
        gaps = [places[b] - places[a] for a, b in pairwise(order)]
        assert all(gap > 1 - 1e-9 for gap in gaps), f"apart; got {places} for {wanted}"
        assert [wanted[i] for i in order] == sorted(wanted), "as their lines lie"
        assert min(places) >= -1e-9 and max(places) <= 10 + 1e-9, "inside"
    assert spread_apart([1.0, 5.0], 1.0, 0.0, 10.0) == [1.0, 5.0], "where they are, if there is room"


def test_eight_lines_have_colours_and_the_others_are_grey():
    pytest.importorskip("matplotlib")
    many = [result(f"m{i}", 1, shots=k, accuracy=i / 20) for i in range(12) for k in (1, 4)]
    lines = [line for line in Table(many).plot().axes[0].lines if line.get_label()[0] != "_"]
    colours = [line.get_color() for line in lines]
    assert colours == [*OKABE_ITO, *["#9A9A9A"] * 4], "the best eight, in the palette of Okabe and Ito"
    assert [line.get_label() for line in lines] == [f"m{i}" for i in reversed(range(12))], "by value"

    crowd = of_table(Table([result(f"m{i}(x=1)", 1, shots=k, accuracy=i / 99) for i in range(60) for k in (1, 4)]))
    assert crowd.named() == [f"m{i}(x=1)" for i in range(59, 51, -1)], "of a crowd they alone have names"
    assert crowd.caption[0] == "grey: 52 others, which are behind" and "m3(x=1)" not in crowd.caption[1], "and notes"


def test_a_band_breaks_where_one_seed_has_no_spread():
    pytest.importorskip("matplotlib")
    rows = [result("a", s, shots=k, accuracy=0.5 + k / 100 + s / 50) for k in (1, 2, 4, 8, 16) for s in (1, 2, 3)]
    rows = [r for r in rows if (r.shots, r.seed) not in {(4, 2), (4, 3)}]
    axes = Table(rows).plot().axes[0]
    (band,), (line, *_) = axes.collections, axes.lines
    pieces = [path.vertices for path in band.get_paths()]
    assert [(xy[:, 0].min(), xy[:, 0].max()) for xy in pieces] == [(0, 1), (3, 4)], "nothing is drawn at 4 shots"
    assert line.get_xdata().tolist() == [0, 1, 2, 3, 4], "the line itself goes on"
    assert all(xy[:, 1].max() > xy[:, 1].min() + 1 for xy in pieces), "and where seeds differ it has a width"
    one = Table([r for r in rows if r.seed == 1])
    assert not any(len(band.get_paths()) for band in one.plot().axes[0].collections), "of one seed there is no band"


def test_one_number_of_shots_makes_bars_the_best_on_top():
    pytest.importorskip("matplotlib")
    rows = [result(m, s, shots=0, accuracy=v + s / 100) for m, v in (("a", 0.2), ("b(x=1)", 0.6)) for s in (1, 2)]
    axes = Table(rows).plot().axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["b", "a"], "the best first"
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([61.5, 21.5]), "in percent"
    assert axes.texts[0].get_text() == "61.5 ± 6.4" and axes.get_xlabel() == "accuracy (%)", "with number and unit"


def test_pictures_are_written_alike_each_time_with_their_fonts_and_what_they_are_of():
    pytest.importorskip("matplotlib")
    shown = of_table(Table([replace_backbone(result("狐(x=1)", 1, shots=k, accuracy=0.5)) for k in (1, 4)]), "a")
    for kind, start in {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}.items():
        made = as_picture(shown, kind)
        assert made.startswith(start) and made == as_picture(shown, kind), f"{kind}: the same bytes"
    pdf = as_picture(shown, "pdf")
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf, "TrueType, which printers take"
    assert b"<text" not in as_picture(shown, "svg"), "letters are outlines, whatever fonts a reader has"
    assert shown.caption[0].startswith("backbone toy:0: no CLIP") and "with options: 狐(x=1)" in shown.caption, "said"


def replace_backbone(found):
    return replace(found, protocol={**found.protocol, "backbone": "toy:0"})


def test_rows_that_share_a_name_have_a_number_and_a_note():
    labels = ["gda", "gda(alpha=1.0)", "tip(views=4)", "gda(alpha=2.0)", "zero-shot"]
    assert [*short_names(labels).values()] == ["gda", "gda [1]", "tip", "gda [2]", "zero-shot"], "numbers where needed"
    assert option_notes(labels) == ["[1] gda(alpha=1.0)", "[2] gda(alpha=2.0)", "with options: tip(views=4)"], "noted"
    assert option_notes(["gda", "tip"]) == [], "nothing is left out, nothing is noted"
    odd = ["gda [1]", "gda(a=1)", "gda(b=1)"]
    assert len({*short_names(odd).values()}) == 3, "names stay apart, whatever they are"
    table = Table([result(label, 1, accuracy=0.5) for label in labels])
    assert "gda [2]" in table.text() and "[2] gda(alpha=2.0)" in table.text(), "in a table's text"
    assert "<p>[2] gda(alpha=2.0)</p>" in table._repr_html_(), "and in notebooks"


def test_what_stands_behind_a_mean_is_chosen():
    rows = [result("gda", s, accuracy=v) for s, v in ((1, 0.68), (2, 0.70), (3, 0.72))]
    assert "70.0 ± 5.0" in Table(rows).text(), "Student's interval"
    assert "70.0 ± 2.0" in Table(rows, spread="std").text(), "or the standard deviation"
