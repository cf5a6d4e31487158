"""A folder as OpenCLIP saves it, and its training file epoch_400.pt.

mlfoundations/open_clip#591; huggingface/transformers#28072.
"""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from tests.small import photos

FAULT = pytest.mark.fault("a case from a public bug report", "answered rightly, or refused in one line")
WEIGHTS = {"visual.conv1.weight": torch.zeros(2, 3, 2, 2)}


def folder(place, _):
    place.mkdir()
    (place / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 16}, "preprocess_cfg": {}}')
    save_file(WEIGHTS, place / "open_clip_model.safetensors")
    return place


def training(place, _):
    trained = {f"module.{key}": value for key, value in WEIGHTS.items()}
    torch.save({"epoch": 400, "state_dict": trained}, place.with_name("epoch_400.pt"))
    return place.with_name("epoch_400.pt")


def beside(place, small_clip):
    shutil.copytree(small_clip, place)
    (place / "model.safetensors").unlink()
    save_file(WEIGHTS, place / "open_clip_model.safetensors")
    return place


@FAULT
@pytest.mark.parametrize("make", [folder, training, beside])
def test_a_checkpoint_of_openclip_is_named_with_what_to_do(small_clip, command, tmp_path, make):
    asked = (
        f"dataset=folder:{photos(tmp_path / 'photos', ('cat', 'dog'))}",
        f"backbone=hf:{make(tmp_path / 'x', small_clip)}",
    )
    settings = [word for setting in (*asked, "methods=[zero-shot]") for word in ("--set", setting)]
    code, _, error = command("run", "few_shot", *settings, "--shots", 1, "--quiet", "--out", tmp_path / "res")
    assert code == 2 and error.count("\n") == 1, f"one line; got {error}"
    assert "OpenCLIP" in error and "convert it" in error, f"it must say what this is and what to do; got {error}"
