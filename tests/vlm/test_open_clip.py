"""`open_clip:`: features and pixels are those of OpenCLIP itself, and points are entered as those of `hf:` are."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from adaptkit import Dense, Patches, Pooled, unit
from tests.vlm import tiny
from tests.vlm.tiny import SENTENCES, SIDE

pytest.importorskip("open_clip")
from adaptkit_plugins.backbones import open_clip as plugin

from adaptkit.towers.activation import ActivationWarning
from adaptkit.towers.openclip import openclip_preprocess
from adaptkit.towers.openclip_files import FoundModel, put_weights, read_weights
from adaptkit.towers.sentences import by_token

NATIVE = ("vit", "quick vit", "mean vit", "coca", "siglip")
SPEC = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic", "resize_mode": "shortest"}


def refused(name, *said):
    with pytest.raises(ValueError) as caught:
        plugin.load(str(name))
    message = str(caught.value)
    assert message.count("\n") <= 1, f"an error must be one line or two; got {message!r}"
    assert caught.value.__cause__ is None, "an error must not lead to another"
    for words in said:
        assert words in message, f"{words!r} must be said; got {message!r}"
    return message


def noise(width, height, seed=0, channels=3):
    shape = (height, width, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8).squeeze())


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_features_are_those_of_open_clip(kind, saved, loaded):
    backbone, (model, _, tokenizer) = loaded(kind), tiny.theirs(kind, saved(kind))
    side = backbone.preprocess.size
    pixels = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    images, text = tiny.raw(model, pixels, tokenizer(SENTENCES))
    with torch.no_grad():
        ours = backbone.encode_image(pixels), backbone.encode_text(SENTENCES)
        one_by_one = torch.cat([backbone.encode_text([sentence]) for sentence in SENTENCES])
    for got, want in zip((*ours, one_by_one), (images, text, text), strict=True):
        assert want.std() > 1e-2, "a reference that does not vary proves nothing"
        torch.testing.assert_close(unit(got), unit(want), rtol=0, atol=1e-6)
    bias = 0.0 if model.logit_bias is None else float(model.logit_bias.detach())
    assert backbone.logit_scale == pytest.approx(float(model.logit_scale.detach().exp())), "the scale is the model's"
    assert backbone.logit_bias == bias, "and so is the bias"


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_those_of_open_clip_bit_for_bit(mode, interpolation):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    spec = {**SPEC, "resize_mode": mode, "interpolation": interpolation}
    theirs = image_transform_v2(PreprocessCfg(size=SIDE, **spec), is_train=False)
    ours = openclip_preprocess(spec, SIDE, "a test")
    sides = [(37, 53), (53, 37), (203, 31), (9, 64), (5, 4), (SIDE, SIDE), (35, 32), (32, 35), (1, 90), (67, 101)]
    for width, height in sides:
        for channels in (1, 3):
            image = noise(width, height, channels=channels)
            assert torch.equal(ours(image), theirs(image)), f"pixels of {width} x {height} must be the same"
    for edge in (33, 34, 35):  # crops whose rest is odd
        image = noise(edge, SIDE)
        assert torch.equal(ours(image), theirs(image)), "the crop must begin where theirs does"


def test_the_key_of_other_features_is_as_it_was():
    from adaptkit import Preprocess

    said = Preprocess(size=8, mean=(0.5,) * 3, std=(0.5,) * 3).describe()
    assert "centre" not in said, "keys of stored features must stay"


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_every_point_is_passed_and_every_weight_has_a_name(kind, saved, loaded):
    backbone, seen = loaded(kind), set()
    side = backbone.preprocess.size
    with backbone.taps({p: lambda _, out, p=p: seen.add(p) or out for p in backbone.points}), torch.no_grad():
        x = backbone.encode_image(torch.zeros(2, 3, side, side))
        backbone.encode_text(["owl"])
        pooled = backbone.encode_image(torch.zeros(2, 3, side, side), project=False)
    assert seen == {*backbone.points}, f"never passed: {sorted({*backbone.points} - seen)}"
    assert x.shape == (2, backbone.dim), "embeddings must be as wide as the joint space"
    assert tuple(pooled.shape[1:]) == Pooled(projected=False).shape(backbone), "a need must say its shape"
    names = backbone.weight_names()
    assert len(names) == sum(1 for _ in backbone.model.parameters()), "each weight must have one name"
    assert plugin.load(str(saved(kind))).fingerprint == backbone.fingerprint, "no weight is random"


@pytest.mark.parametrize("kind", NATIVE)
def test_native_towers_have_the_points_of_transformers_towers(kind, loaded):
    points = {*loaded(kind).points}
    parts = ("q", "k", "v", "out", "fc1", "fc2", "norm1", "norm2")
    want = {f"{tower}.block.{i}.{part}" for tower in ("image", "text") for i in (0, 1) for part in parts}
    assert want | {"image.tokens", "text.tokens", "text.norm", "image.block.-1"} <= points


def test_where_modules_are_not_there_points_are_not(loaded):
    assert "image.block.0" not in loaded("resnet").points, "a ResNet has no blocks"
    assert not any(name.startswith("image.block") for name in loaded("mobile").points), "nor has FastViT"
    assert "image.block.0.q" not in loaded("normed attention").points, "queries are normed after the map"
    assert {"image.block.0", "image.block.0.fc1"} <= {*loaded("map vit").points}, "blocks of timm can be entered"
    assert "image.tokens" not in loaded("eva").points, "no token can be added where positions turn"
    with pytest.raises(ValueError, match=r"image\.block\.-1\.q"):
        Dense(attention="query-query").compute(loaded("resnet"), torch.zeros(1, 3, 64, 64))


@torch.no_grad()
def test_dense_features_of_a_resnet_are_values_projected(saved, loaded):
    backbone, (model, *_) = loaded("resnet"), tiny.theirs("resnet", saved("resnet"))
    pixels, pool, seen = torch.randn(2, 3, 64, 64), model.visual.attnpool, []
    with pool.register_forward_pre_hook(lambda _, args: seen.append(args[0])) as _:
        model.encode_image(pixels)
    tokens = seen[0].flatten(2).mT + pool.positional_embedding[1:]  # (B, 4, W)
    want = pool.c_proj(pool.v_proj(tokens))
    for attention in ("value", "own"):
        got = Dense(unit=False, attention=attention).compute(backbone, pixels)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    torch.testing.assert_close(Patches().compute(backbone, pixels)[:, 1:], tokens)
    every = backbone.points["image.head"].module.every(Patches().compute(backbone, pixels))
    torch.testing.assert_close(backbone.points["image.projection"](every)[:, 0], model.encode_image(pixels))
    assert Dense().shape(backbone) == (4, 16) and Patches().shape(backbone) == (5, 256)


@pytest.mark.parametrize("kind", [*NATIVE, "eva", "map vit"])
@torch.no_grad()
def test_a_token_alone_passes_the_head(kind, loaded):
    backbone = loaded(kind)
    side = backbone.preprocess.size
    attention = "value" if kind in NATIVE else "own"
    rows = Dense(attention=attention).compute(backbone, torch.randn(2, 3, side, side))
    assert rows.isfinite().all() and rows.shape[2] == backbone.dim, "each patch must have an embedding"


def test_gelu_is_not_quick_gelu(saved, tmp_path):
    folder = shutil.copytree(saved("vit"), tmp_path / "m")
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"]["quick_gelu"] = True
    file.write_text(json.dumps(config))
    one, two = plugin.load(str(saved("vit"))), plugin.load(str(folder))
    assert one.fingerprint != two.fingerprint, "another activation is another backbone"
    assert (one.encode_text(["owl"]) - two.encode_text(["owl"])).abs().max() > 1e-4, "and answers otherwise"


def test_a_tag_of_another_activation_is_refused_and_a_file_is_doubted(tmp_path):
    message = refused("RN50/openai", "QuickGELU", "open_clip:RN50-quickgelu/openai")
    assert "random" not in message
    refused("ViT-B-32/metaclip_400m", "open_clip:ViT-B-32-quickgelu/metaclip_400m")
    from adaptkit.towers.openclip_files import ensure_activation_fits

    with pytest.warns(ActivationWarning, match="quick_gelu"):
        ensure_activation_fits("weights/metaclip-b32.safetensors", quick=False)
    with pytest.warns(ActivationWarning, match="without -quickgelu"):
        ensure_activation_fits("laion2b/open_clip_model.safetensors", quick=True)
    ensure_activation_fits("mine.safetensors", quick=True)


def test_a_model_without_weights_is_refused_with_its_tags():
    refused("ViT-B-32", "laion2b_s34b_b79k", "at random", "or a file")
    assert "openai" not in refused("ViT-B-32").split("got")[0], "tags of another activation are no choice"
    refused("RN50", "RN50-quickgelu with one of openai, yfcc15m, cc12m")
    refused("RN50-quickgelu/opnai", "one of openai, yfcc15m, cc12m", "did you mean 'openai'")


def test_names_of_nothing_are_said_at_once():
    refused("", "must be followed by")
    refused("RN5", "did you mean 'RN50'")
    refused("RN51/weights.pt", "hf download RN51/weights.pt", "did you mean 'RN50'")
    refused("nobody/nothing", "hf download nobody/nothing")
    message = refused("RN50-quickgelu/openai", "timm/resnet50_clip.openai")
    assert "open_clip_model.safetensors" in message, "the file to bring must be named"


def test_a_model_of_a_name_reads_a_file(saved, tmp_path, monkeypatch):
    import open_clip

    known = {**open_clip.factory._MODEL_CONFIGS, "tiny": tiny.settings("vit")}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", known)
    file = saved("vit") / "open_clip_model.safetensors"
    backbone = plugin.load(f"tiny/{file}")
    assert backbone.encode_text(["owl"]).equal(plugin.load(str(saved("vit"))).encode_text(["owl"]))
    held = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in read_weights(file).items()}}
    torch.save(held, tmp_path / "a.pt")  # as its training does
    assert plugin.load(f"tiny/{tmp_path / 'a.pt'}").fingerprint == backbone.fingerprint, "the same weights"
    refused(f"tiny/{tmp_path / 'b.pt'}", "must be a file", "did you mean")


class Evil:
    def __reduce__(self):
        return print, ("code of a checkpoint ran",)


def test_no_code_in_a_file_runs(saved, tmp_path, capsys):
    folder = shutil.copytree(saved("vit"), tmp_path / "m")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save({"state_dict": {"logit_scale": Evil()}}, folder / "open_clip_pytorch_model.bin")
    refused(folder, "weights must be tensors", "open_clip_pytorch_model.bin")
    assert "code of a checkpoint ran" not in capsys.readouterr().out, "a pickle was executed"


def change(folder, **changes):
    """Other weights in a folder; ``None`` removes one."""
    from safetensors.torch import load_file, save_file

    file = folder / "open_clip_model.safetensors"
    held = load_file(file) | {name.replace("__", "."): value for name, value in changes.items()}
    save_file({name: value for name, value in held.items() if value is not None}, file)
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ln_final__weight": None}, "without ln_final.weight"),
        ({"ln_final__other": torch.zeros(3)}, "with ln_final.other"),
        ({"ln_final__weight": torch.zeros(3)}, "(24,); got (3,)"),
        ({"ln_final__weight": torch.zeros(24, dtype=torch.int8)}, "int8"),
        ({"ln_final__weight": torch.full((24,), float("nan"))}, "finite"),
        ({"visual__positional_embedding": torch.zeros(10, 32)}, "(17, 32); got (10, 32)"),
    ],
)
def test_weights_that_are_not_the_models_are_named(saved, tmp_path, changes, said):
    refused(change(shutil.copytree(saved("vit"), tmp_path / "m"), **changes), said)


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("vision_cfg", "layers", 10**9, "'vision_cfg.layers'"),
        ("vision_cfg", "width", "wide", "'vision_cfg.width'"),
        ("vision_cfg", "image_size", [30, 20], "a square"),
        ("text_cfg", "width", 2**16, "bytes"),
        ("text_cfg", "heads", 5, "must be a model of OpenCLIP"),
        ("text_cfg", "pool_type", "eos", "must close where"),
        ("text_cfg", "tokenizer_mode", "clips", "tokenizer_mode"),
        ("text_cfg", "vocab_size", 100, "shape"),
    ],
)
def test_a_config_that_no_tower_has_is_refused_by_its_key(saved, tmp_path, part, key, value, said):
    folder = shutil.copytree(saved("vit"), tmp_path / "m")
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"][part][key] = value
    file.write_text(json.dumps(config))
    refused(folder, said)


@pytest.mark.parametrize("text", ["[]", "{}", '{"model_cfg": 3}', '{"model_cfg": {"embed_dim": 4}}', "{"])
def test_a_config_that_is_none_is_refused(saved, tmp_path, text):
    folder = shutil.copytree(saved("vit"), tmp_path / "m")
    (folder / "open_clip_config.json").write_text(text)
    refused(folder, "open_clip_config.json")


@pytest.mark.parametrize(("key", "value"), [("resize_mode", "longest"), ("interpolation", "random"), ("mean", [1, 2])])
def test_preprocessing_that_cannot_be_followed_is_refused_by_its_key(tmp_path, saved, key, value):
    folder = shutil.copytree(saved("vit"), tmp_path / "m")
    file = folder / "open_clip_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "preprocess_cfg": {key: value}}))
    refused(folder, f"{key!r} of 'preprocess_cfg'")


def test_a_folder_without_weights_is_refused(saved, tmp_path):
    folder = shutil.copytree(saved("vit"), tmp_path / "m")
    (folder / "open_clip_model.safetensors").unlink()
    refused(folder, "must hold open_clip_model.safetensors")
    refused(tmp_path, "without open_clip_config.json")


def test_positions_of_a_published_tag_are_interpolated_and_of_a_file_are_not(saved):
    found = FoundModel(tiny.settings("vit"), {}, saved("vit") / "open_clip_model.safetensors", "tiny", tag="published")
    found.settings["vision_cfg"]["image_size"] = 2 * SIDE
    model = plugin.made(found)
    put_weights(model, found)
    assert len(model.visual.positional_embedding) == 65, "positions must be those of the larger square"


def test_what_the_cache_of_the_hub_holds_is_known(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert [*plugin.load.offline()] == [], "an empty cache"
    for repo, *files in (
        ("tests--whole", "open_clip_config.json", "open_clip_pytorch_model.bin"),
        ("tests--half", "open_clip_config.json"),
        ("timm--resnet50_clip.openai", "open_clip_model.safetensors"),
    ):
        snapshot = tmp_path / f"models--{repo}/snapshots/abc"
        snapshot.mkdir(parents=True)
        for file in files:
            (snapshot / file).write_text("{}")
    assert [*plugin.load.offline()] == ["tests/whole", "RN50-quickgelu/openai"], "whole, and of the right activation"


@pytest.mark.parametrize("kind", NATIVE)
def test_every_token_leaves_as_the_one_that_stands_for_the_sentence(kind, loaded):
    backbone = loaded(kind)
    with torch.no_grad():
        whole, words, ends = by_token(backbone, backbone.tokenize(SENTENCES))
    assert words.shape[::2] == (len(SENTENCES), backbone.dim), "all tokens must be there, whichever the tower reads"
    named = words[torch.arange(len(SENTENCES)), ends]
    torch.testing.assert_close(named, whole, rtol=0, atol=1e-5, msg="the tower must name the one that it reads")
