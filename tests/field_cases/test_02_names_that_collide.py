"""Folders whose names become one text, which answers must still tell apart.

muzairkhattak/multimodal-prompt-learning#13 (two classes of one name fold together: 991 instead of 1000).
"""

import csv
import io
import json

import pytest

from tests.small import photos, table

FAULT = pytest.mark.fault("a case from a public bug report", "answered rightly, or refused in one line")
NAMES = ["crane", "sea lion", "sea-lion", "sea_lion"]


@FAULT
def test_answers_name_the_folder_that_was_meant(small_clip, tmp_path, command):
    folder = photos(tmp_path / "photos", NAMES, n=10)
    about = ("--set", f"dataset=folder:{folder}", "--set", f"backbone=hf:{small_clip}")
    model = tmp_path / "model"
    export = ("export", "few_shot", *about, "--set", "methods=[gda]", "--method", "gda", "--shots", "4", "--seed", "1")
    code, _, err = command(*export, "--out", model, "--quiet")
    assert code == 0 and not err, err
    code, out, err = command("predict", model, *(folder / name / "0.png" for name in NAMES), "--top", "4")
    rows = list(csv.DictReader(io.StringIO(out)))
    answers = [[row["label"], *(row[f"label_{rank}"] for rank in (2, 3, 4))] for row in rows]
    assert code == 0 and all(sorted(answer) == NAMES for answer in answers), f"classes cannot be told apart: {out}"
    assert all(name in (model / "README.md").read_text() for name in NAMES), "the card cannot tell classes apart"


@FAULT
@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_zero_shot_says_which_classes_it_cannot_tell_apart(kind, small_clip, tmp_path, command):
    folder, out = photos(tmp_path / "photos", NAMES, n=10), tmp_path / "out"
    rows = [(file.relative_to(tmp_path), file.parent.name) for file in sorted(folder.rglob("*.png"))]
    place = folder if kind == "folder" else table(tmp_path / "l.csv", rows)
    code, _, err = command.run(f"{kind}:{place}", f"hf:{small_clip}", out, methods="[zero-shot,gda]", shots=4)
    assert code == 0 and err.count("warning: ") == 1 and "cannot tell apart 'sea lion'," in err, err
    records = {r["method"]: r for r in (json.loads(f.read_text()) for f in out.glob("*-shot.*.json"))}
    group = ["sea lion", "sea-lion", "sea_lion"] if kind == "folder" else ["sea lion", "sea_lion"]
    assert records["zero-shot"]["alike"] == [group] and records["gda"]["alike"] == [], "records do not say it"
    names = [name for name, _ in records["gda"]["classes"][""]]
    assert names == NAMES, f"per-class numbers cannot be told apart: {names}"
