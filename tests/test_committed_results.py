"""Committed results: what a run's folder becomes, and how rows of some methods take the place of others."""

import pytest

from adaptkit.cli import main
from tools import results


@pytest.fixture
def ran(tmp_path, monkeypatch, capsys):
    """Runs some methods of a toy recipe, and gives the folder of their records."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")

    def run(name, *methods, shots=2):
        out = tmp_path / name
        asked = ["--set", f"methods={list(methods)}", "--shots", str(shots), "--seeds", "1"]
        assert main(["--home", str(tmp_path / "home"), "run", "toy", *asked, "--out", str(out), "--quiet"]) == 0
        capsys.readouterr()
        return out

    return run


def test_rows_of_some_methods_take_the_place_of_their_own(ran):
    results.write("mine", ran("one", "zero-shot", "gda"), "adaptkit run toy", "a note")
    before = results.read("mine")
    assert [each.method for each in before.results] == ["zero-shot", "gda"], "a row for each cell"
    results.write("mine", ran("two", "gda", "linear-probe"), "another command", "", part=True)
    after = results.read("mine")
    assert [each.method for each in after.results] == ["zero-shot", "gda", "linear-probe"], f"got {after.results}"
    assert after.about == before.about and {*after.code} == {"zero-shot", "gda", "linear-probe"}, "its head stays"


def test_rows_that_were_measured_otherwise_do_not_join_a_file(ran, monkeypatch):
    results.write("mine", ran("one", "zero-shot"), "adaptkit run toy", "")
    monkeypatch.setattr(results, "KEPT", ("dataset",))
    with pytest.raises(ValueError, match="protocol must be those of the file to join it"):
        results.write("mine", ran("two", "zero-shot"), "adaptkit run toy", "", part=True)
