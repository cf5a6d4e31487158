"""What a setting leaves to the machine becomes what is good there, is told, and is recorded by name."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from adaptkit import Pooled
from adaptkit.features.cache import FeatureCache
from adaptkit.features.store import Store
from adaptkit.io.notices import Notice
from adaptkit.runs import plugins
from adaptkit.runs.loading import pick_backbone
from adaptkit.runs.protocol import protocol
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.setting import Setting
from adaptkit.runs.workspace import Workspace
from adaptkit.testing import ToyImages, toy_backbone
from adaptkit.towers import batch
from adaptkit.towers.batch import fitting_batch
from adaptkit.towers.precision import deviation, has_bfloat16, resolve


@pytest.fixture
def processor(monkeypatch):
    """Let the processor say what it has."""
    return lambda **told: monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)


def recorded(folder, precision):
    """The protocol of a recipe, the specs of what it stores, and what it says."""
    asked = {"dataset": "toy", "backbone": "toy:0", "select": "none", "precision": precision}
    recipe = Recipe(name="mine", folder=folder, shots=[1], seeds=[1], methods=["gda"], **asked)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        workspace = Workspace(recipe.setting(), home=folder)
    workspace.cache.images(workspace.splits.test, Pooled(), torch.arange(3))
    tables = {table.folder.name for table in workspace.cache.store.tables()}
    notices = [str(one.message) for one in said if one.category is Notice]
    return protocol(recipe, workspace, workspace.evaluation_sets()), tables, notices


@pytest.mark.parametrize("has", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_processor_with_instructions_for_it_gets_bfloat16(processor, has):
    cpu = torch.device("cpu")
    processor(**{has: True}, avx512_f=True)
    assert has_bfloat16(cpu) and resolve("auto", cpu) == "bf16-mixed", f"{has} must count"
    processor(**{has: False}, avx512_f=True)
    assert not has_bfloat16(cpu) and resolve("auto", cpu) == "32-true", "what it does by way of float32 must not"
    assert resolve("16-mixed", cpu) == "16-mixed", "what is asked for by name must stay"


def test_a_gpu_gets_bfloat16_from_ampere_on(monkeypatch):
    for capability, want in (((7, 5), "32-true"), ((8, 0), "bf16-mixed"), ((10, 0), "bf16-mixed")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, is_=capability: is_)
        assert resolve("auto", torch.device("cuda", 0)) == want, f"a GPU of capability {capability} must get {want}"
    assert resolve("auto", torch.device("mps")) == "32-true", "of others nothing is known"


def test_auto_is_recorded_and_stored_as_what_it_became(tmp_path, processor):
    for has, name in ((True, "bf16-mixed"), (False, "32-true")):
        processor(avx512_bf16=has)
        fixed, tables, said = recorded(tmp_path / name, "auto")
        assert fixed["precision"] == name, "the record must name what it was"
        assert (fixed, tables, []) == recorded(tmp_path / f"{name} by name", name), "and all be as if asked for by name"
        assert len(said) == 1 and f"precision auto is {name} here" in said[0], f"a line must say so; got {said}"
        assert ("on 4 images the cosine to 32-true is at least 0.99" in said[0]) == has, f"and how far off; got {said}"


def test_a_deviation_is_none_of_a_precision_from_itself():
    tower = toy_backbone("0")
    pixels = torch.stack([tower.preprocess(ToyImages("test", 4).image(i)) for i in range(4)])
    off = deviation(tower, pixels, "32-true")
    assert off.cosine == pytest.approx(1, abs=1e-6) and off.largest == 0, f"got {off}"
    lower = deviation(tower, pixels, "bf16-mixed")
    assert 0.99 < lower.cosine < 1 and 0 < lower.largest < 0.1, f"bfloat16 must be off by a little; got {lower}"


def test_a_cache_that_is_asked_for_auto_has_a_precision(tmp_path, processor):
    processor()
    hook = plugins.manager().hook
    cache = FeatureCache(toy_backbone("0"), Store(tmp_path), hook=hook, load=pick_backbone, precision="auto")
    assert cache.precision == cache.answering.precision == "32-true", "in its keys and in its arithmetic"


def test_a_batch_on_a_processor_is_one_that_is_good_there(tmp_path):
    with pytest.warns(Notice, match="batch_size auto is 16 here, on cpu"):
        workspace = Workspace(Setting(dataset="toy", backbone="toy:0", select="none", batch_size="auto"), home=tmp_path)
    assert workspace.cache.batch_size == workspace.setting.batch_size == 16, "that is what passes have"
    for wrong in (0, "all", 1.5, True):
        with pytest.raises(ValueError, match=r"batch_size must be a whole number .* or 'auto'; got"):
            Setting(dataset="toy", backbone="toy:0", batch_size=wrong)


def test_a_batch_on_a_gpu_is_what_half_its_free_memory_holds(monkeypatch):
    asked, tower = [], SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8_000_000_000, 80_000_000_000))
    monkeypatch.setattr(
        batch, "peak_of_pass", lambda backbone, precision, rows: asked.append(rows) or 10**9 + rows * 30_000_000
    )
    assert fitting_batch(tower, "32-true") == 128, "133 images would fit; a power of two is as good"
    assert len(asked) == 2, "two passes must tell what an image takes, whatever the tower itself holds"
