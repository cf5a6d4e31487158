"""The keys of cells: every module that took part counts, by its syntax; what only shows the numbers does not."""

from pathlib import Path

import pytest

import adaptkit
from adaptkit.io import code
from adaptkit.runs import plugins, protocol, recipe
from adaptkit.runs.build import check_recipe
from adaptkit.runs.workspace import Workspace

CORE, PLUGINS = Path(adaptkit.__file__).parent, Path(adaptkit.__file__).parents[1] / "plugins"
BASE = "dataset: toy\nbackbone: toy:0\nshots: [1]\nseeds: [1]\nmethods: [{trans-clip: {base: gda}}]\n"


@pytest.fixture
def key(tmp_path, monkeypatch):
    """The protocol and the key of a cell, as if one file of ours had other text."""
    (tmp_path / "x.yaml").write_text(BASE)
    asked = check_recipe(recipe.read_recipe(str(tmp_path / "x.yaml")))
    workspace = Workspace(asked.setting(), home=tmp_path)
    tests, known = workspace.evaluation_sets(), code._file

    def find(edited=None, text=""):
        other = tmp_path / "edited.py"
        other.write_text(text)
        monkeypatch.setattr(code, "_file", lambda name: other if edited and known(name) == edited else known(name))
        fixed = protocol.protocol(asked, workspace, tests)
        return fixed, protocol.tag(protocol.cells(asked)[0], fixed, protocol.participants(workspace))

    return find


PARTS = [
    CORE / "methods/adapt.py",
    CORE / "methods/ops.py",
    CORE / "methods/evaluation/classification.py",
    CORE / "runs/workspace.py",
    CORE / "towers/backbone.py",
    CORE / "testing/toy.py",
    PLUGINS / "transductive/trans_clip.py",
    PLUGINS / "training_free/gda.py",
    PLUGINS / "supports/few_shot.py",
    PLUGINS / "prompts/templates.py",
    PLUGINS / "datasets/toy.py",
    PLUGINS / "backbones/toy.py",
]


@pytest.mark.parametrize("file", PARTS, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_code_of_every_part_counts_and_its_docstrings_do_not(file, key):
    text = file.read_text()
    before = key()
    assert text.startswith('"""'), "the test must have a docstring to edit"
    assert key(file, text.replace('"""', '"""In other words: ', 1)) == before, "a docstring makes no number"
    assert key(file, f"{text}\nbroken_on_purpose = 1\n")[1] != before[1], "code may make other numbers"


@pytest.mark.parametrize("file", ["report/table.py", "commands/run.py", "api.py", "saving/state.py"])
def test_what_only_shows_numbers_does_not_count(file, key):
    assert key(CORE / file, "X = 1\n") == key(), "no cell needs to be run again"


def test_the_protocol_names_the_sampler_by_what_it_does(key):
    file = CORE / "features/samplers.py"
    before = key()[0]["sampler"]
    assert key(file, file.read_text() + "\nELSE = 1\n")[0]["sampler"] == before, "what it does not name draws nothing"
    changed = file.read_text().replace("rng.sample", "rng.choices")
    assert changed != file.read_text(), "the test must break the sampler"
    assert key(file, changed)[0]["sampler"] != before, "another sampler is another protocol"


def test_a_table_may_hold_whatever_can_be_called():
    from functools import partial

    class Made:
        def __call__(self):
            pass

    assert protocol.definition(partial(partial(plugins.pick), "a")) is plugins.pick, "a partial's function"
    assert protocol.definition(Made()) is Made, "an object's class"
