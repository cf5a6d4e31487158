"""`timm:`: features and pixels are those of `timm` itself."""

import json

import numpy as np
import pytest
import torch
from adaptkit_plugins.backbones import timm as plugin
from PIL import Image

from adaptkit import Dense, Patches, Pooled
from tests.vlm.tiny import spread_all

timm = pytest.importorskip("timm")
NAMES = ("test_vit", "test_resnet", "test_convnext", "vit_small_patch14_dinov2", "test_efficientnet")


def saved(folder, name, **cfg):
    """A folder as `timm` saves it, and its model."""
    from safetensors.torch import save_file

    folder.mkdir()
    model = spread_all(timm.create_model(name, pretrained=False))
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    config = {"architecture": name, "pretrained_cfg": {**model.pretrained_cfg, "num_classes": model.num_classes, **cfg}}
    (folder / "config.json").write_text(json.dumps(config, default=str))
    return model


def refused(name, *said):
    with pytest.raises(ValueError) as caught:
        plugin.load(str(name))
    message = str(caught.value)
    assert message.count("\n") <= 1 and caught.value.__cause__ is None, f"an error must be short; got {message!r}"
    for words in said:
        assert words in message, f"{words!r} must be said; got {message!r}"


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_features_and_pixels_are_those_of_timm(name, tmp_path):
    from timm.data import create_transform, resolve_data_config

    model = saved(tmp_path / "m", name)
    eye = plugin.load(str(tmp_path / "m"))
    transform = create_transform(**resolve_data_config({}, model=model))
    rng = np.random.default_rng(0)
    sides = [(171, 240), (240, 171), (300, 95), (50, 61)]
    images = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sides]
    for image in images:
        assert torch.equal(eye.preprocess(image), transform(image)), "pixels must be the same, bit for bit"
    pixels = torch.stack([transform(image) for image in images[:2]])
    want = model.forward_head(model.forward_features(pixels), pre_logits=True)
    torch.testing.assert_close(Pooled(unit=False).compute(eye, pixels), want, rtol=1e-5, atol=1e-5)
    assert Pooled(projected=False).shape(eye) == want.shape[1:], "an eye has no projection"
    by_file = plugin.load(f"{name}/{tmp_path / 'm' / 'model.safetensors'}")
    assert by_file.fingerprint == eye.fingerprint, "a name and a file are the same eye"
    if name.startswith("vit") or name == "test_vit":
        tokens = Patches().compute(eye, pixels)
        torch.testing.assert_close(model.norm(tokens), model.forward_features(pixels), rtol=1e-5, atol=1e-5)
        assert Dense(attention="own").compute(eye, pixels).isfinite().all()
    else:
        with pytest.raises(ValueError, match=r"image\.block\.-1"):
            Patches().compute(eye, pixels)
    with pytest.raises(ValueError, match="tokenizer"):
        eye.encode_text(["owl"])


def test_what_is_no_tower_of_timm_is_refused(tmp_path):
    refused("", "must be followed by")
    refused("resnet5", "did you mean")
    refused("vit_small_patch14_dinov2.lvd142m", "hf download timm/vit_small_patch14_dinov2.lvd142m")
    refused("test_vit/nothing.safetensors", "must be a file")
    refused(tmp_path, "without config.json")
    saved(tmp_path / "a", "test_vit", crop_mode="border")
    refused(tmp_path / "a", "'crop_mode'")
    saved(tmp_path / "b", "test_vit", input_size=[3, 160, 100])
    refused(tmp_path / "b", "'input_size'")
    saved(tmp_path / "c", "test_vit")
    refused(f"test_resnet/{tmp_path / 'c' / 'model.safetensors'}", "must hold the weights of test_resnet")
    (tmp_path / "c" / "model.safetensors").unlink()
    refused(tmp_path / "c", "must hold one of model.safetensors")
    (tmp_path / "c" / "config.json").write_text('{"architecture": "nothing"}')
    refused(tmp_path / "c", "must be a model of timm")


def test_models_in_the_cache_of_the_hub_are_known_and_read(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert [*plugin.load.offline()] == [], "an empty cache"
    model = "test_vit.r160_in1k"
    repo = tmp_path / "hub" / f"models--timm--{model}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots").mkdir()
    saved(repo / "snapshots" / "abc", model)
    assert [*plugin.load.offline()] == [model], "by the name that is written behind timm:"
    assert plugin.load(model).dim == 64, "its weights are those of the cache"


def test_a_model_that_the_hub_does_not_have_wants_a_file():
    refused("gcvit_base.in1k", "must come with a file")
