"""A dataset of one's own in the field's split file, with an empty val.

KaiyangZhou/CoOp#37 and #57; muzairkhattak/multimodal-prompt-learning#53 and #78.
"""

import json

import pytest

from adaptkit.cli import main
from tests.test_own_pictures import photos, split_of

FAULT = pytest.mark.fault("a case from a public bug report", "answered rightly, or refused in one line")


@FAULT
def test_a_split_file_of_ones_own_is_learned_from_whatever_it_is_called(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))
    file = split_of(photos(tmp_path / "images"), val=[]).rename(tmp_path / "split_zhou_Mine.json")
    asked = ["few_shot", "--set", "backbone=toy:0", "--set", "methods=[gda]", "--shots", "1", "--seeds", "1", "--quiet"]
    out = ["--out", str(tmp_path / "out")]
    assert main(["run", *asked, "--set", f"dataset=split:{file}", *out]) == 0, "val is parted off"
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "out").glob("gda*.json"))
    assert "val is a fifth of each class of train" in record["protocol"]["parted"], "which the protocol names"
    assert "parted here: val is a fifth" in capsys.readouterr().out, "and the run"
    for scheme in ("csv", "folder"):
        assert main(["run", *asked, "--set", f"dataset={scheme}:{file}", *out]) == 2, "it is none of these"
        assert f"split:{file}" in capsys.readouterr().err, "and the error says what it is"
