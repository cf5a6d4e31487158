"""Backbones, datasets or whatever differs side by side: what is paired, what is not, and what is refused."""

import csv
import json

import numpy as np
import pytest

from adaptkit import cli
from adaptkit.report import runs
from adaptkit.report.across import Across, sheet_across
from adaptkit.report.comparison import Column
from adaptkit.report.significance import OverImages
from tests.test_compare import cell, run, three


def other(**protocol):
    return {"protocol": {"backbone": "toy:1", "fingerprint": "another", "preprocess": "another", **protocol}}


@pytest.fixture
def folders(tmp_path):
    """One run on each of two backbones."""
    a = run(tmp_path / "a", three("gda", 0.7) + three("tip(views=4)", 0.5) + three("only", 0.4))
    b = run(tmp_path / "b", three("gda", 0.4, **other()) + three("tip(views=4)", 0.5, **other()))
    return a, b


def test_backbones_on_the_same_images_are_paired(folders):
    across = Across(runs.read_runs(folders), "backbone")
    assert across.values == ["toy:0", "toy:1"], "as they came"
    cells = across.sections[Column("toy", 4)]
    found = cells["gda"]["toy:1"].verdict
    assert found.difference == pytest.approx(-0.3) and found.reference == "toy:0", "the second minus the first"
    assert "sign-flip" in found.test and found.differs, "over the same images"
    right = [np.array([[i < n for i in range(100)] for n in counts]) for counts in ((39, 40, 41), (69, 70, 71))]
    assert found.p == pytest.approx(2 * OverImages([tuple(right)]).p(), rel=1e-6), "Holm's, of two methods"
    assert cells["tip(views=4)"]["toy:1"].verdict.p == 1.0, "the same answers"
    assert list(cells["only"]) == ["toy:0"], "what one of them lacks has no difference"
    sheet = sheet_across(across)
    assert [row[0] for row in sheet.blocks[0].rows[1:]] == ["gda", "tip"], "nor a row"
    assert "only under toy:0: only" in sheet.notes, "which is said"
    turned = Across(runs.read_runs(folders), "backbone", against="toy:1")
    assert turned.values == ["toy:1", "toy:0"], "another may be the one held against"
    assert turned.sections[Column("toy", 4)]["gda"]["toy:0"].verdict.difference == pytest.approx(0.3), "turned round"


def test_kinds_are_told_apart_and_never_advised_to_stand_side_by_side(tmp_path, capsys):
    a = run(tmp_path / "a", three("win-clip", 0.7, protocol={"backbone": "toy:0", "kind": "maps"}))
    b = run(tmp_path / "b", three("sum", 0.4, protocol={"backbone": "toy:0", "kind": "ranking"}))
    assert cli.main(["compare", str(a), str(b)]) == 2, "kinds have no metric in common"
    said = capsys.readouterr().err
    assert "--by kind" not in said and "--where KEY=VALUE takes some" in said, said
    assert cli.main(["compare", str(a), str(b), "--where", "kind=maps", "--metric", "accuracy"]) == 0, "which is true"


def test_other_images_are_not_paired_and_it_is_said(tmp_path):
    a = run(tmp_path / "a", three("gda", 0.7))
    b = run(tmp_path / "b", three("gda", 0.4, dataset="b", images=50))
    across = Across(runs.read_runs([a, b]), "dataset")
    found = across.sections[Column("", 4)]["gda"]["b"].verdict
    error = (0.21 / 100 + 0.24 / 50) ** 0.5
    low, high = found.interval
    assert "unpaired" in found.test, "images of its own"
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.02), "both sides have their error"
    notes = " ".join(sheet_across(across).notes)
    assert "unpaired" in notes and "compare how methods are ordered" in notes, "said below the table"


def test_what_differs_otherwise_is_refused_and_named(folders, tmp_path):
    c = run(tmp_path / "c", three("tip", 0.4, **other(select="oracle")))
    with pytest.raises(ValueError, match="got select = 'none' and 'oracle'; adaptkit compare --by select"):
        Across(runs.read_runs([folders[0], c]), "backbone")
    with pytest.raises(ValueError, match="--against, with --by, is a value of its key and must be one of toy:0, toy:1"):
        Across(runs.read_runs(folders), "backbone", against="toy:7")
    d = run(tmp_path / "d", three("gda", 0.4, shots=8, **other()))
    with pytest.raises(ValueError, match="must share methods and shots; got none that toy:0 and toy:1 both have"):
        Across(runs.read_runs([folders[0], d]), "backbone")
    with pytest.raises(ValueError, match="metric must be one of accuracy; got 'nll'"):
        Across(runs.read_runs(folders), "backbone", "nll")


def test_backbones_are_laid_out_in_columns_without_being_asked(folders, tmp_path, capsys):
    names = [str(folder) for folder in folders]
    assert cli.main(["compare", *names, "--where", "backbone=toy:0", "--where", "backbone=toy:1"]) == 0, "either"
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.startswith("| gda"))
    assert "| 70.0 ± 2.5 | 40.0 ± 2.5 | -30.0 [" in row and "p < 0.001" in row, f"side by side; got {row}"
    assert "toy:1 - toy:0" in shown and "- with options: tip(views=4)" in shown, "with heads and notes"
    assert "- backbone toy:1: no CLIP" in shown, "and what both are"
    files = [tmp_path / f"x{suffix}" for suffix in (".md", ".tex", ".csv", ".json")]
    assert cli.main(["compare", *names, *(str(word) for f in files for word in ("--out", f))]) == 0, "in files"
    rows = [*csv.DictReader(files[2].read_text().splitlines())]
    assert [row["value"] for row in rows[:2]] == ["toy:0", "toy:1"] and float(rows[1]["difference"]) < -0.29, "as CSV"
    numbers = json.loads(files[3].read_text())["tables"][0]["numbers"]
    assert numbers[1]["difference"] == float(rows[1]["difference"]) and numbers[0]["p"] is None, "as JSON"
    assert cli.main(["compare", *names, "--out", str(tmp_path / "x.html")]) == 2, "no page of it"
    assert "with --by backbone must be one of" in capsys.readouterr().err, "and that is said"


def test_several_values_datasets_and_shots_make_a_table_each(tmp_path):
    results = [
        cell(m, s, v, dataset=d, shots=k, **({} if b == "toy:0" else {"protocol": {"backbone": b}}))
        for m, v in (("gda", 0.7), ("tip", 0.5))
        for d in ("toy", "b")
        for k in (1, 4)
        for b in ("toy:0", "toy:1", "toy:2")
        for s in (1, 2)
    ]
    sheet = sheet_across(Across(runs.read_runs([run(tmp_path / "a", results)]), "backbone"))
    assert [block.heading for block in sheet.blocks] == ["toy, 1 shot", "toy, 4 shots", "b, 1 shot", "b, 4 shots"], (
        "each"
    )
    assert len(sheet.blocks[0].rows[0]) == 6, "three values and two differences"
