"""The examples in docstrings run, and what is public has one."""

import doctest
import importlib
import pkgutil

import pytest

import adaptkit

MODULES = [found.name for found in pkgutil.walk_packages(adaptkit.__path__, "adaptkit.")]
NO_EXAMPLE = {"hookimpl", "hookspec", "save_classifier", "load_classifier"}
"""Pluggy's two markers; and two functions whose example is that of `Classifier`."""


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name, capsys):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} needs a package that is not installed: {error}")
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert not found.failed, f"an example of {name} must print what it says:\n{capsys.readouterr().out}"


@pytest.mark.parametrize("name", sorted({*adaptkit.__all__} - NO_EXAMPLE))
def test_a_public_name_has_an_example(name):
    assert ">>> " in (getattr(adaptkit, name).__doc__ or ""), f"the docstring of adaptkit.{name} must have an example"
