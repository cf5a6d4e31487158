"""A home or a place for results that cannot be written; /proc stands for a disk that can only be read.

Source: huggingface/transformers#13472; huggingface/huggingface_hub#2797.
"""

import pytest
from PIL import Image

from adaptkit import cli

FIELD_CASE = ("a case from a public bug report", "answered rightly, or refused in one line")


@pytest.fixture
def own(tmp_path, capsys, monkeypatch):
    """A folder of pictures, and a run, an export and their commands."""
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))
    for name, shade in (("cat", 0), ("dog", 100)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (40, 36), (shade, 20 * i, 7)).save(tmp_path / "photos" / name / f"{i}.png")

    def say(*words):
        setting = ["--set", f"dataset=folder:{tmp_path / 'photos'}", "--set", "backbone=toy:0"]
        code = cli.main([*map(str, words), *(setting if words[0] in ("run", "export") else [])])
        return code, *capsys.readouterr()

    return say


METHODS = ("--set", "methods=[zero-shot, gda]", "--set", "select=none", "--shots", "1")
RUN = ("run", "few_shot", *METHODS, "--seeds", "1", "--quiet")


@pytest.mark.fault(*FIELD_CASE)
def test_what_cannot_be_written_is_one_line_that_names_it_and_how_to_choose_another(own, tmp_path, monkeypatch):
    assert own(*RUN, "--out", tmp_path / "ok")[0] == 0, "where it can be written, it must run"
    export = ("export", "few_shot", *METHODS, "--method", "gda", "--quiet", "--out")
    assert own(*export, tmp_path / "m")[0] == 0, "and export"
    picture = tmp_path / "photos" / "cat" / "0.png"
    monkeypatch.setenv("ADAPTKIT_HOME", "/proc/adaptkit")
    refused = {"home": own(*RUN, "--out", tmp_path / "other")}
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))
    refused |= {
        "run": own(*RUN, "--out", "/proc/x"),
        "export": own(*export, "/proc/m"),
        "predict": own("predict", tmp_path / "m", picture, "--out", "/proc/o.csv"),
        "compare": own("compare", tmp_path / "ok", "--out", "/proc/page.html"),
    }
    for what, (code, _, error) in refused.items():
        assert (code, error.count("\n")) == (2, 1), f"{what} must end in one line and code 2; got {code}, {error!r}"
        assert "'/proc" in error, f"{what} must name the folder; got {error!r}"
        assert all(way in error for way in ("ADAPTKIT_HOME", "--home", "--out")), f"and the ways out; got {error!r}"
