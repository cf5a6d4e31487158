"""Every check on every method, whoever wrote it; what is trained is trained briefly."""

from dataclasses import fields, replace

import pytest

from adaptkit import Schedule, method, plugins
from adaptkit.testing import CHECKS, check
from adaptkit.values import default


def brief(name, steps):
    """The method as its author means it, but for the length of its training."""
    options = {f.name: default(f) for f in fields(plugins.table("methods")[name])}
    return method(name, **{n: replace(s, steps=steps, warmup=0) for n, s in options.items() if isinstance(s, Schedule)})


@pytest.mark.parametrize("title", CHECKS)
@pytest.mark.parametrize("name", plugins.table("methods"))
def test_every_method_keeps_the_contract(name, title, toy):
    task, queries = replace(toy[0], val=toy[0].val[:10]), toy[1]
    few = {"beats_chance": 60, "sweep_matches_forward": 8}.get(title, 20)  # a grid may have hundreds of cells
    check(title, lambda: brief(name, 60 if title == "beats_chance" else 4), task, queries[:few])


def test_every_plugin_loads():
    assert not plugins.broken, f"every plugin must load; these did not: {plugins.broken}"
    assert plugins.table("methods"), "the methods must be found, or the tests above hold for nothing"
