"""Methods on models of OpenCLIP: the contract, tap methods on transformers, and what a ResNet has and has not."""

import json

import pytest
import torch

import adaptkit as ak
from adaptkit.runs import plugins
from adaptkit.testing import CHECKS, check
from adaptkit.towers.prompting import Prompts
from tests.checkpoints import make_clip
from tests.vlm import tiny

pytest.importorskip("open_clip")
from adaptkit_plugins.backbones import hf
from adaptkit_plugins.backbones import open_clip as plugin

SHORT = {"schedule": {"steps": 2, "batch_size": 4}}
ANY = ("zero-shot", "gda", "tip-adapter", "ape", "coop", "pro-lip")
TOWERS = ("maple", "clip-lora", "vpt", "ivlp", "mmrl")
DONE = ("output_shape", "scope", "backbone_untouched")


@pytest.fixture(scope="module")
def tasks(saved, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    done = {}

    def task(kind):
        if kind not in done:
            done[kind] = ak.load("toy", backbone=f"open_clip:{saved(kind)}", shots=2, seed=1, home=home)
        return done[kind]

    return task


def method(name):
    kind = plugins.table("methods")[name]
    return ak.method(name, **(SHORT if hasattr(kind, "schedule") else {}))


@pytest.mark.parametrize("name", [*ANY, "calip"])
@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("checked", DONE)
def test_methods_keep_their_contract(kind, name, checked, tasks):
    task, test = tasks(kind)
    check(checked, lambda: method(name), task, test[:12])


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("kind", ["vit", "siglip"])
def test_methods_that_enter_towers_enter_these(kind, name, tasks):
    task, test = tasks(kind)
    for checked in ("output_shape", "backbone_untouched", "every_parameter_learns"):
        check(checked, lambda: method(name), task, test[:6])


@pytest.mark.parametrize("name", [*TOWERS, "gopro"])
def test_a_resnet_refuses_by_name_what_it_has_not(name, tasks):
    task, _ = tasks("resnet")
    with pytest.raises(ValueError, match=r"tap point 'image|encoder must be 'text'"):
        ak.adapt(method(name), task)


def test_prompts_are_the_same_packed_and_one_by_one(tasks):
    backbone = tasks("quick vit")[0].backbone
    names = [f"a {word} {other}" for word in ("red", "blue", "old") for other in ("car", "small house", "owl")]
    prompts = Prompts(backbone, names, n=4)
    context = prompts.start()
    assert prompts.packs() is not None, "sentences that begin alike must share rows"
    packed = prompts.encode(context)
    each = torch.cat([Prompts(backbone, [name], n=4).encode(context) for name in names])
    torch.testing.assert_close(packed, each, rtol=0, atol=2e-5)


def test_lower_precision_is_near(loaded):
    from adaptkit.towers.precision import deviation

    for kind in ("vit", "resnet", "coca"):
        backbone = loaded(kind)
        side = backbone.preprocess.size
        assert deviation(backbone, torch.randn(2, 3, side, side), "bf16-mixed").cosine > 0.98, f"{kind} in bfloat16"


def moved(model):
    """Weights of `transformers`' CLIP under OpenCLIP's names."""
    held = model.state_dict()

    def blocks(ours, theirs):
        made = {}
        for i in range(2):
            a, b = f"{theirs}.encoder.layers.{i}", f"{ours}.resblocks.{i}"
            for kind in ("weight", "bias"):
                qkv = [held[f"{a}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                made[f"{b}.attn.in_proj_{kind}"] = torch.cat(qkv)
                made[f"{b}.attn.out_proj.{kind}"] = held[f"{a}.self_attn.out_proj.{kind}"]
                made[f"{b}.mlp.c_fc.{kind}"] = held[f"{a}.mlp.fc1.{kind}"]
                made[f"{b}.mlp.c_proj.{kind}"] = held[f"{a}.mlp.fc2.{kind}"]
                made[f"{b}.ln_1.{kind}"] = held[f"{a}.layer_norm1.{kind}"]
                made[f"{b}.ln_2.{kind}"] = held[f"{a}.layer_norm2.{kind}"]
        return made

    norms = {"visual.ln_pre": "vision_model.pre_layrnorm", "visual.ln_post": "vision_model.post_layernorm"}
    norms |= {"ln_final": "text_model.final_layer_norm"}
    return {
        **blocks("visual.transformer", "vision_model"),
        **blocks("transformer", "text_model"),
        **{f"{ours}.{kind}": held[f"{name}.{kind}"] for ours, name in norms.items() for kind in ("weight", "bias")},
        "visual.class_embedding": held["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": held["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": held["vision_model.embeddings.patch_embedding.weight"],
        "visual.proj": held["visual_projection.weight"].T.contiguous(),
        "token_embedding.weight": held["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": held["text_model.embeddings.position_embedding.weight"],
        "text_projection": held["text_projection.weight"].T.contiguous(),
        "logit_scale": held["logit_scale"],
    }


@torch.no_grad()
def test_the_same_weights_by_hf_and_by_open_clip_are_the_same_features(tmp_path):
    from safetensors.torch import save_file
    from transformers import AutoTokenizer

    folder = make_clip(tmp_path / "hf")
    by_hf = hf.load(str(folder))
    made = tmp_path / "open_clip"
    AutoTokenizer.from_pretrained(folder).save_pretrained(made)
    image = {"image_size": 30, "patch_size": 10, "layers": 2, "width": 20, "head_width": 10, "mlp_ratio": 2}
    text = {"context_length": 24, "vocab_size": by_hf.points["text.tokens"].module.num_embeddings, "width": 24}
    text |= {"heads": 2, "layers": 2, "mlp_ratio": 40 / 24, "hf_tokenizer_name": "own"}
    config = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": image, "text_cfg": text}
    (made / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    save_file(moved(by_hf.model), made / "open_clip_model.safetensors")
    ours = plugin.load(str(made))
    pixels = torch.randn(3, 3, 30, 30)
    for got, want in (
        (ours.encode_image(pixels), by_hf.encode_image(pixels)),
        (ours.encode_text(tiny.SENTENCES[:3]), by_hf.encode_text(tiny.SENTENCES[:3])),
    ):
        assert want.std() > 1e-3, "a reference that does not vary proves nothing"
        torch.testing.assert_close(ak.unit(got), ak.unit(want), rtol=0, atol=1e-6)
    assert ours.logit_scale == pytest.approx(by_hf.logit_scale)
    shared = {*ours.points} & {*by_hf.points}
    assert shared == {*by_hf.points}, "points must be the same"
    for name in ("image.block.1.q", "text.block.0.fc2"):
        weight = by_hf.weight(name)
        torch.testing.assert_close(ours.weight(name), weight)


def test_every_check_named_here_is_one():
    assert {*DONE} <= {*CHECKS}, "a check that is gone checks nothing"
