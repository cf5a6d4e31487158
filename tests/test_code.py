"""Digests of code: what changes an answer changes them, what does not, does not."""

import importlib
import sys

import pytest

from adaptkit import Pooled
from adaptkit.io import code

HEAD = '"""A plugin."""\n\nfrom adaptkit import unit\nimport beside\n\nSCALE = 2.0\n\n\n'
BODY = 'def helper(x):\n    return SCALE * x\n\n\ndef answer(x):\n    """Say it."""\n    return helper(x)\n'


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def write(text=HEAD + BODY, beside="X = 1\n"):
        (tmp_path / "beside.py").write_text(beside)
        (tmp_path / "adaptkit_file_mine.py").write_text(text)
        for name in ("adaptkit_file_mine", "beside"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("adaptkit_file_mine")

    yield write
    for name in ("adaptkit_file_mine", "beside"):
        sys.modules.pop(name, None)


def test_docstrings_comments_and_layout_change_nothing(plugin):
    before, whole = code.of(plugin().answer), code.of_modules(["adaptkit_file_mine"])
    text = (HEAD + BODY).replace("Say it.", "Say it otherwise.").replace("A plugin.", "Mine.")
    text = text.replace("    return helper(x)", "    # a comment\n\n    return helper( x )")
    assert code.of(plugin(text).answer) == before, "neither of a definition"
    assert code.of_modules(["adaptkit_file_mine"]) == whole, "nor of a module"


@pytest.mark.parametrize("change", [("SCALE * x", "SCALE + x"), ("SCALE = 2.0", "SCALE = 3.0"), ("(x)\n", "(-x)\n")])
def test_a_definition_is_followed_into_what_it_names(plugin, change):
    before = code.of(plugin().answer)
    assert code.of(plugin((HEAD + BODY).replace(*change)).answer) != before, f"{change} changes the answer"


def test_a_definition_does_not_depend_on_its_neighbours(plugin):
    before, whole = code.of(plugin().answer), code.of_modules(["adaptkit_file_mine"])
    text = HEAD + BODY + "\n\ndef other():\n    return 1\n"
    assert code.of(plugin(text).answer) == before, "what is not named does not count"
    assert code.of_modules(["adaptkit_file_mine"]) != whole, "but for a module it does"


def test_modules_are_followed_into_what_they_import(plugin):
    plugin()
    before = code.of_modules(["adaptkit_file_mine"])
    plugin(beside="X = 2\n")
    assert code.of_modules(["adaptkit_file_mine"]) != before, "a file that lies beside the plugin counts"


def test_public_names_lead_to_where_they_lie():
    assert Pooled.__module__.startswith(code.public()["Pooled"]), "the stub says where a name comes from"
    assert all(name.startswith("adaptkit.") for name in code.public().values())


def test_a_core_module_that_a_plugin_imports_counts(plugin):
    plugin()
    with_unit = code.of_modules(["adaptkit_file_mine"])
    plugin((HEAD + BODY).replace("from adaptkit import unit", "from adaptkit import predict as unit"))
    imports = code._imports(code._tree(code._file("adaptkit_file_mine"), 2), "adaptkit_file_mine")
    assert "adaptkit.methods.predicting" in set(imports), "`from adaptkit import predict` leads to where it lies"
    assert code.of_modules(["adaptkit_file_mine"]) != with_unit, "and its code counts"


def test_needs_differ_by_the_code_of_their_compute():
    assert code.of(Pooled.compute) == code.of(Pooled.compute), "twice the same"
    assert code.of(Pooled.compute) != code.of(Pooled.read), "and another function is another"
