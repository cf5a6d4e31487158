"""What the package is called, and the package of somebody else that is called as ours is imported."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from adaptkit.cli import main
from adaptkit.io.namesake import OUR_SUMMARY, namesake

ROOT = Path(__file__).parents[1]
FAULT = pytest.mark.fault("another package of the same import name", "named in one line, with what to uninstall")
NOTES = [
    ("adaptkit-2.0.dist-info", "METADATA", "Name: adaptkit\nVersion: 2.0\nSummary: Adapters\n"),
    ("adaptkit-0.1.0.dist-info", "METADATA", "Name: adaptkit\nVersion: 0.1.0\n"),
    ("adaptkit-2.0-py3.11.egg-info", "PKG-INFO", "Name: adaptkit\n"),
    ("adaptkit.egg-info", "PKG-INFO", "Name: adaptkit\n"),
]


def installed(place, folder, file, text):
    (place / folder).mkdir(parents=True)
    (place / folder / file).write_text(text)
    return str(place)


@FAULT
@pytest.mark.parametrize("notes", NOTES, ids=[folder for folder, *_ in NOTES])
def test_the_command_refuses_another_package_beside_ours(notes, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(installed(tmp_path, *notes))
    assert main(["list", "recipes"]) == 2, "the other package is not noticed"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip uninstall adaptkit" in said and "adaptkit-vlm" in said, said


@FAULT
def test_importing_it_refuses_another_package_beside_ours(tmp_path):
    env = {**os.environ, "PYTHONPATH": installed(tmp_path, *NOTES[0])}
    done = subprocess.run([sys.executable, "-c", "import adaptkit"], env=env, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode and last.startswith("ImportError: adaptkit must be the only package"), done.stderr


def test_our_own_package_of_before_is_no_stranger(tmp_path, monkeypatch):
    text = f"Name: adaptkit\nVersion: 0.1.0\n{OUR_SUMMARY}, as plugins\n"
    monkeypatch.syspath_prepend(installed(tmp_path, "adaptkit-0.1.0.dist-info", "METADATA", text))
    assert not namesake(), "an older installation of ours is taken for the other package"


def test_the_package_has_a_name_of_its_own_and_says_where_it_comes_from():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "adaptkit-vlm", "the name on PyPI is somebody else's"
    assert project["scripts"] == {"adaptkit": "adaptkit.cli:main"}, "the command is no longer adaptkit"
    assert project["authors"] == [{"name": "The adaptkit developers"}] and project["urls"], "who and where is not said"
    assert OUR_SUMMARY.removeprefix("Summary: ") in project["description"], "ours cannot be told from the other package"


def test_no_message_tells_anybody_to_install_the_other_package():
    files = [*ROOT.glob("*.md"), *ROOT.glob(".ci/*"), *ROOT.glob("notebooks/*")]
    files += [f for folder in ("adaptkit", "plugins", "recipes", "docs") for f in (ROOT / folder).rglob("*.*")]
    for file in files:
        if file.suffix in (".py", ".md", ".yaml", ".ipynb", ".json", ""):
            text = file.read_text(encoding="utf-8")
            wrong = re.search(r"adaptkit\[|pip install [^;,`&\n]*\badaptkit\b(?!-vlm)", text)
            assert not wrong, f"{file.relative_to(ROOT)} says {wrong[0]!r}"
