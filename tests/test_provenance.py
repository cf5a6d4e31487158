"""The key of a row says who made its bytes: the core's code, or a plugin's."""

import importlib
import sys

import pytest
import torch

from adaptkit import Pooled, hookimpl
from adaptkit.features.cache import FeatureCache
from adaptkit.features.store import Store
from adaptkit.runs import plugins
from adaptkit.runs.loading import pick_backbone
from adaptkit.testing import ToyImages, toy_backbone

IMAGES, ALL = ToyImages("train", 6), torch.arange(6)
NEED = Pooled(unit=False)
PLUGIN = '"""Mine."""\nfrom adaptkit import hookimpl\n@hookimpl\ndef extract(need, backbone, pixels):\n    {}\n'
PLUS = "return need.compute(backbone, pixels) + 1"


@pytest.fixture
def plug(tmp_path):
    """Register a plugin's code in the place of the one before; None takes it away."""

    def forget():
        if plugins.manager().has_plugin("mine"):
            plugins.manager().unregister(name="mine")

    def add(body):
        forget()
        if body is not None:
            (tmp_path / "mine.py").write_text(PLUGIN.format(body))
            importlib.invalidate_caches()
            plugins.add_file(tmp_path / "mine.py")

    yield add
    forget()
    sys.modules.pop("adaptkit_file_mine", None)
    plugins.table.cache_clear()


def read(folder, need=NEED, backbone=None, images=IMAGES):
    """Rows as another process would read them, and how many it computed."""
    backbone = backbone or toy_backbone("0")
    cache = FeatureCache(backbone, Store(folder), hook=plugins.manager().hook, load=pick_backbone)
    rows = cache.images(images, need, torch.arange(len(images)))
    return rows, sum(cache.computed.values())


def test_rows_of_a_plugin_are_not_served_when_it_is_gone_or_edited(tmp_path, plug):
    core, _ = read(tmp_path)
    plug(PLUS)
    rows, computed = read(tmp_path)
    assert computed == 6 and not torch.equal(rows, core), "a plugin that answers must not be given the core's rows"
    assert read(tmp_path)[1] == 0, "its own rows must be found again"
    plug(PLUS.replace("+ 1", "+ 2"))
    assert torch.allclose(read(tmp_path)[0], rows + 1, atol=1e-2), "an edited plugin must answer anew"
    plug(PLUS)
    assert read(tmp_path)[1] == 0, "the rows of the first text are still there"
    plug("'It says more.'\n    " + PLUS)
    assert read(tmp_path)[1] == 0, "a docstring changes no row"
    plug(None)
    again, computed = read(tmp_path)
    assert computed == 0 and torch.equal(again, core), "without the plugin the core's rows must be read"
    assert Store(tmp_path).verify() == [], "nothing is wrong with any table"


def test_a_plugin_that_never_answers_shares_the_rows_of_the_core(tmp_path, plug):
    core, _ = read(tmp_path)
    plug("return None")
    rows, computed = read(tmp_path)
    assert computed == 0 and torch.equal(rows, core), "who only watches must change no key"


def test_a_plugin_that_answers_for_some_images_only_is_named_with_the_other(tmp_path, plug):
    plug("return need.compute(backbone, pixels) if pixels.any() else None")
    with pytest.raises(ValueError, match=r"by one plugin, 'adaptkit' .*; got 'mine'") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value), "in one line"
    plug("return None if pixels.any() else need.compute(backbone, pixels)")
    with pytest.raises(ValueError, match=r"by one plugin, 'mine' .*; got 'adaptkit'"):
        read(tmp_path)
    assert Store(tmp_path).tables() == [], "and nothing is stored"


def test_a_plugin_may_answer_for_some_needs_and_leave_others_to_the_core(tmp_path, plug):
    core = {projected: read(tmp_path, Pooled(unit=False, projected=projected))[0] for projected in (True, False)}
    plug("return need.compute(backbone, pixels) + 1 if need.projected else None")
    rows, computed = read(tmp_path, Pooled(unit=False, projected=False))
    assert computed == 0 and torch.equal(rows, core[False]), "what it does not answer for is the core's"
    assert not torch.equal(read(tmp_path)[0], core[True]), "what it answers for is its own"


def test_a_plugin_that_wraps_the_others_is_refused_by_name(tmp_path):
    class Wrapper:
        @hookimpl(wrapper=True)
        def extract(self):
            return (yield) + 1

    plugins.manager().register(wrapper := Wrapper(), "wrapper")
    try:
        with pytest.raises(ValueError, match=r"extract must be answered, not wrapped; got .* plugin 'wrapper'"):
            read(tmp_path)
    finally:
        plugins.manager().unregister(wrapper)


NEEDS = '''"""A need of a plugin's own."""
from dataclasses import dataclass
from adaptkit import Pooled

SCALE = 1.0

def scaled(x):
    """Scale."""
    return SCALE * x

@dataclass(frozen=True, kw_only=True)
class Mine(Pooled):
    """Mine."""
    def compute(self, backbone, pixels):
        """Rows."""
        return scaled(super().compute(backbone, pixels))
'''


@pytest.mark.parametrize("module", ["adaptkit_file_need", "need_of_another_distribution"])
def test_rows_are_keyed_by_the_code_of_their_need_without_its_docstrings(tmp_path, monkeypatch, module):
    monkeypatch.syspath_prepend(tmp_path)

    def mine(text):
        (tmp_path / f"{module}.py").write_text(text)
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return importlib.import_module(module).Mine(unit=False)

    first, computed = read(tmp_path / "f", mine(NEEDS))
    assert computed == 6, "the first text must compute"
    same = NEEDS.replace("Rows.", "Other words.").replace("Scale.", "More.").replace("SCALE * x", "SCALE * x  # why")
    assert read(tmp_path / "f", mine(same))[1] == 0, "docstrings and comments change no row"
    rows, computed = read(tmp_path / "f", mine(NEEDS.replace("SCALE = 1.0", "SCALE = 2.0")))
    assert computed == 6 and torch.allclose(rows, 2 * first, atol=1e-2), "what `compute` reaches changes the rows"
    sys.modules.pop(module, None)


def test_rows_are_keyed_by_the_code_of_the_tower_and_of_the_preprocessing(tmp_path):
    plain = toy_backbone("0")
    cache = FeatureCache(plain, Store(tmp_path), hook=plugins.manager().hook, load=pick_backbone)
    (part,) = cache.parts(IMAGES, NEED, [0])
    assert part.table.spec["by"] == ["adaptkit"], "the core needs no digest of its own"
    assert isinstance(part.table.spec["code"], str), "the code of need, tower and preprocessing stands in the key"
