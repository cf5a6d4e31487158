"""Results on their own: metrics in their units, as pandas, as a picture; and the schema of a record."""

import json
import sys
from dataclasses import fields
from pathlib import Path

import jsonschema
import pytest

from adaptkit import cli
from adaptkit.report.runs import read_results
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


def test_a_picture_has_a_line_for_each_method_also_without_shots():
    pytest.importorskip("matplotlib")
    many = Table([result(m, s, shots=k, nll=k / 8) for m in ("gda", "tip") for k in (1, 4) for s in (1, 2)], "nll")
    axes = many.plot("title").axes[0]
    assert [line.get_label() for line in axes.lines] == ["gda", "tip"], "one line each"
    assert axes.lines[0].get_xydata().tolist() == [[0.0, 0.125], [2.0, 0.5]], "shots by logarithm, nats as they are"
    assert axes.get_ylabel() == "nll" and axes.get_title() == "title", "named"
    assert len(Table([result("gda", 1, shots=0, accuracy=0.5)]).plot().axes[0].lines) == 1, "0 shots have a place too"
