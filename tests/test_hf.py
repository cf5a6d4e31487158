"""`hf:`: features are those of `transformers` itself, and whatever is missing is said in one or two lines, quickly."""

import json
import shutil
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from adaptkit_plugins.backbones import hf
from PIL import Image

import adaptkit.towers.hub
from adaptkit import Patches, Pooled, unit
from tests.checkpoints import (
    IMAGE,
    LENGTH,
    SENTENCES,
    SIDE,
    edit,
    make_clip,
    make_metaclip2,
    make_siglip,
    refused,
    save,
)

ROTARY = {**IMAGE, "hidden_size": 24}  # positions turn quarters of a head


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return make_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="module")
def metaclip2(tmp_path_factory):
    return make_metaclip2(tmp_path_factory.mktemp("metaclip2"))


@pytest.fixture(scope="module", params=["dinov2", "vit", "dinov2_with_registers", "dinov3_vit", "gated dinov3_vit"])
def eye(request, tmp_path_factory):
    import transformers as t

    torch.manual_seed(0)
    wider = IMAGE | {"image_size": 50}  # positions are interpolated
    square = t.ViTImageProcessorPil(size=SIDE, do_convert_rgb=True)
    crop = t.BitImageProcessorPil(size={"shortest_edge": 37}, crop_size=SIDE)
    model, processor = {
        "vit": lambda: (t.ViTModel(t.ViTConfig(**IMAGE), add_pooling_layer=False), square),
        "dinov2": lambda: (t.Dinov2Model(t.Dinov2Config(**wider)), crop),
        "dinov2_with_registers": lambda: (t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**wider)), crop),
        "dinov3_vit": lambda: (t.DINOv3ViTModel(t.DINOv3ViTConfig(**ROTARY, num_register_tokens=4)), square),
        "gated dinov3_vit": lambda: (t.DINOv3ViTModel(t.DINOv3ViTConfig(**ROTARY, use_gated_mlp=True)), square),
    }[request.param]()
    return save(tmp_path_factory.mktemp("eye"), model, processor)


@pytest.fixture
def copy(clip, tmp_path):
    """A CLIP checkpoint that a test may spoil."""
    return shutil.copytree(clip, tmp_path / "tiny-clip")


def images():
    """Every mode a folder may hold, at odd sizes and shapes."""
    rng = np.random.default_rng(0)

    def noise(width, height, channels):
        return rng.integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()

    rgb = Image.fromarray(noise(37, 53, 3))
    holes = rgb.convert("P")
    holes.info["transparency"] = 7
    return {
        "RGB": rgb,
        "wide": Image.fromarray(noise(203, 31, 3)),
        "tall": Image.fromarray(noise(9, 64, 3)),
        "small": Image.fromarray(noise(5, 4, 3)),
        "exact": Image.fromarray(noise(SIDE, SIDE, 3)),
        "L": Image.fromarray(noise(61, 30, 1)),
        "RGBA": Image.fromarray(noise(41, 67, 4)),
        "LA": Image.fromarray(noise(41, 67, 2)),
        "CMYK": rgb.convert("CMYK"),
        "P": rgb.convert("P"),
        "P with holes": holes,
        "1": rgb.convert("1"),
    }


def theirs(folder):
    """Model, image processor and tokenizer, as `transformers` loads them."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder) if (folder / "tokenizer.json").exists() else None
    model, processor = (
        AutoModel.from_pretrained(folder).eval(),
        AutoImageProcessor.from_pretrained(folder, backend="pil"),
    )
    logging.enable_progress_bar()
    return model, processor, tokenizer


def same(ours, reference, tolerance=1e-5):
    assert reference.std() > 1e-3, "a reference that does not vary proves nothing"
    torch.testing.assert_close(ours, reference, rtol=0, atol=tolerance)


def same_pixels(folder):
    preprocess, (_, processor, _) = hf.load(str(folder)).preprocess, theirs(folder)
    for name, image in images().items():
        reference = processor(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(preprocess(image), reference, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@torch.no_grad()
def same_features(folder):
    backbone, (model, processor, tokenizer) = hf.load(str(folder)), theirs(folder)
    pixels = processor(list(images().values()), return_tensors="pt")["pixel_values"]
    ours = torch.stack([backbone.preprocess(image) for image in images().values()])
    same(backbone.encode_image(ours), model.get_image_features(pixel_values=pixels).pooler_output)
    words = tokenizer(SENTENCES, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    text = model.get_text_features(input_ids=words["input_ids"]).pooler_output
    same(backbone.encode_text(SENTENCES), text)
    one_by_one = torch.cat([backbone.encode_text([sentence]) for sentence in SENTENCES])  # trimmed, or not
    same(one_by_one, text, 1e-6)
    assert len({tuple(row) for row in words["input_ids"].tolist()}) == len(SENTENCES), "sentences must differ"
    x, t = unit(backbone.encode_image(ours)), unit(text)
    logits = model(input_ids=words["input_ids"], pixel_values=pixels).logits_per_image
    same(backbone.logits(x, t), logits, 1e-4)


def reached(backbone):
    """Tap points that an image and a sentence pass."""
    seen = set()
    with backbone.taps({p: lambda _, out, p=p: seen.add(p) or out for p in backbone.points}), torch.no_grad():
        backbone.encode_image(torch.zeros(1, 3, SIDE, SIDE))
        if "text.tokens" in backbone.points:
            backbone.encode_text(["owl"])
    return seen


@pytest.mark.parametrize("kind", ["clip", "metaclip2", "siglip"])
def test_features_are_those_of_transformers(kind, request):
    same_features(request.getfixturevalue(kind))


def test_pixels_are_those_of_transformers(clip, siglip, eye):
    for folder in (clip, siglip, eye):
        same_pixels(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": SIDE, "crop_size": SIDE},  # as the first CLIP checkpoints spell it
        {"size": {"shortest_edge": 41}, "rescale_factor": None, "do_rescale": None, "do_convert_rgb": None},
        {"size": {"shortest_edge": 21}},  # a crop larger than the image is padded
        {"resample": 2, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
    ],
)
def test_every_spelling_of_the_preprocessing_is_read(copy, changes):
    edit(copy / "preprocessor_config.json", **changes)
    same_pixels(copy)


def test_preprocessing_saved_by_a_processor_of_transformers_5_is_read(copy):
    spec = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "processor_config.json").write_text(
        json.dumps({"image_processor": spec, "processor_class": "CLIPProcessor"})
    )
    (copy / "preprocessor_config.json").unlink()
    same_pixels(copy)


def test_a_view_lays_transparency_over_white_as_the_plain_image_does(clip):
    preprocess, clear = hf.load(str(clip)).preprocess, Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    white = preprocess(Image.new("RGB", (40, 40), "white"))
    torch.testing.assert_close(preprocess(clear), white)
    torch.testing.assert_close(preprocess.view(clear, "crop-flip", "seed"), white)


def test_clip_with_the_old_end_of_text_is_pooled_at_the_largest_id(copy):
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    edit(copy / "config.json", text_config=config["text_config"])
    same_features(copy)


def test_long_sentences_keep_their_end(clip, siglip):
    for folder in (clip, siglip):
        backbone, end = hf.load(str(folder)), theirs(folder)[2].eos_token_id
        ids = backbone.tokenize(SENTENCES)["input_ids"]
        assert ids.shape == (len(SENTENCES), LENGTH), "sentences must be cut at the tower's length"
        assert ids[:, -1].tolist() == [end] * len(SENTENCES), "the end of text must survive the cut"
        assert backbone.tokenize(["owl"])["input_ids"].shape[1] == (5 if folder is clip else LENGTH)


def test_every_tap_point_is_reached(clip, metaclip2, siglip, eye):
    for folder in (clip, metaclip2, siglip, eye):
        backbone = hf.load(str(folder))
        assert reached(backbone) == set(backbone.points), f"every point of {folder.name} must be passed"
        assert {"image.tokens", "image.block.0", "image.block.-1"} <= set(backbone.points)
    assert {"text.tokens", "text.block.1.q", "text.block.1.fc2"} <= set(hf.load(str(siglip)).points)


def test_scale_bias_and_widths_are_the_checkpoints(clip, siglip):
    ours = hf.load(str(siglip))
    assert ours.logit_bias == pytest.approx(-7.5) and ours.logit_scale == pytest.approx(np.exp(2.3), rel=1e-5)
    assert (ours.dim, ours.width, ours.depth, ours.prefix) == (
        20,
        {"image": 20, "text": 20},
        {"image": 2, "text": 2},
        0,
    )
    ours = hf.load(str(clip))
    assert (ours.dim, ours.width, ours.logit_bias, ours.prefix) == (16, {"image": 20, "text": 24}, 0, 1)
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in ours.model.parameters())


def test_half_precision_checkpoints_are_read_in_single(siglip, tmp_path):
    model, *rest = theirs(siglip)
    backbone = hf.load(str(save(tmp_path, model.half(), *rest)))
    assert {p.dtype for p in backbone.model.parameters()} == {torch.float32}, "weights must be float32"


@torch.no_grad()
def test_a_second_eye_sees_and_cannot_read(eye):
    backbone, (model, processor, _) = hf.load(str(eye)), theirs(eye)
    pixels = processor(list(images().values()), return_tensors="pt")["pixel_values"]
    tokens = model(pixels).last_hidden_state
    same(Pooled(unit=False).compute(backbone, pixels), tokens[:, 0])
    norm = model.norm if model.config.model_type == "dinov3_vit" else model.layernorm
    same(norm(Patches().compute(backbone, pixels)), tokens)
    parts = {f"image.block.0.{part}" for part in ("q", "k", "v", "out", "fc1", "fc2")}
    assert parts <= set(backbone.points), f"{model.config.model_type} must have all linear maps as points"
    assert hf.load(str(eye)).fingerprint == backbone.fingerprint, "no weight may be random"
    with pytest.raises(ValueError, match="tokenizer"):
        backbone.encode_text(["owl"])


def test_loading_prints_nothing_and_leaves_logging_as_it_was(clip, siglip, capfd):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    capfd.readouterr()
    hf.load(str(clip))
    hf.load(str(siglip))
    assert capfd.readouterr() == ("", ""), "loading must print nothing"
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_named(copy, file):
    (copy / file).unlink()
    refused(copy, file.removeprefix("pre").removeprefix("model"), str(copy))


class Evil:
    def __reduce__(self):
        return print, ("code of a checkpoint ran",)


def test_old_weights_are_read_as_tensors_and_run_no_code(copy, capsys):
    from safetensors.torch import load_file

    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    assert hf.load(str(copy)).dim > 0, "an old checkpoint must load"
    torch.save({**weights, "logit_scale": Evil()}, copy / "pytorch_model.bin")
    refused(copy, "a checkpoint must load", str(copy))
    assert "code of a checkpoint ran" not in capsys.readouterr().out, "a pickle was executed"


def test_tokenizers_tell_stored_sentences_apart(copy):
    before = hf.load(str(copy)).vocabulary
    spec = json.loads((copy / "tokenizer.json").read_text())
    first, second = sorted(spec["model"]["vocab"])[:2]
    vocab = spec["model"]["vocab"]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (copy / "tokenizer.json").write_text(json.dumps(spec))
    assert hf.load(str(copy)).vocabulary != before, "another tokenizer must not read the old sentences"


def test_a_missing_vocabulary_is_said_and_not_made_up(copy):
    (copy / "tokenizer.json").unlink()
    refused(copy, "tokenizer.json, vocab.json", str(copy))


def test_a_missing_weight_is_not_drawn_at_random(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    refused(copy, "visual_projection.weight", str(copy))


def test_damaged_files_are_named(copy):
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-100])
    refused(copy, str(copy))
    (copy / "config.json").write_text("{")
    refused(copy, str(copy / "config.json"))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("clop", "did you mean 'clip'?"),
        ("clap", "its towers are not read"),
        ("siglip2", "NaFlex"),
        ("clip_vision_model", "one tower alone"),
        ("dinov3_convnext", "DINOv3 with a ViT"),
        (["clip"], "got ['clip']"),
        (None, "got None"),
    ],
)
def test_other_kinds_of_model_are_refused_with_those_allowed(copy, kind, said):
    edit(copy / "config.json", model_type=kind)
    message = refused(
        copy, "clip, metaclip_2, siglip, dinov2, dinov2_with_registers, dinov3_vit, vit", said, "model_type"
    )
    assert ("did you mean" in message) == (kind == "clop"), "only what is misspelt is to be spelt otherwise"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("do_resize", False, "true"),
        ("do_rescale", False, "true"),
        ("do_normalize", False, "true"),
        ("rescale_factor", 1 / 127.5, "1/255"),
        ("resample", 1, "2 (bilinear) or 3 (bicubic)"),
        ("resample", None, "2 (bilinear) or 3 (bicubic)"),
        ("image_mean", None, "three numbers"),
        ("image_std", [0.5], "three numbers"),
        ("crop_size", {"height": 30, "width": 20}, "an equal height and width"),
        ("crop_size", None, "an equal height and width"),
        ("size", {"longest_edge": 30}, "shortest_edge"),
        ("size", {"shortest_edge": 30, "longest_edge": 60}, "shortest_edge"),
        ("size", None, "shortest_edge"),
    ],
)
def test_preprocessing_that_is_not_supported_is_named(copy, key, value, said):
    edit(copy / "preprocessor_config.json", **{key: value})
    refused(copy, "preprocessor_config.json", repr(key), said, f"got {value!r}")


def test_a_shortest_edge_without_a_crop_is_refused(copy):
    edit(copy / "preprocessor_config.json", do_center_crop=False)
    refused(copy, "'size'", "do_center_crop", "got {'shortest_edge': 30}")


def test_a_wrong_path_is_told_from_a_wrong_id(copy, tmp_path, monkeypatch):
    refused(tmp_path / "tiny-clop", "folder", f"did you mean '{copy}'")
    refused(copy / "config.json", "folder")
    refused("", "folder")
    monkeypatch.chdir(tmp_path)
    refused("tiny_clip", "did you mean 'tiny-clip'", "hf download tiny_clip")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Hugging Face's cache, empty; its host switched off until a test says otherwise."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return monkeypatch, constants


def test_offline_and_missing_says_what_to_download_and_where_to_put_it(hub):
    said = (
        "got 'openai/no-such-clip'",
        "hf download openai/no-such-clip",
        "hf:no-such-clip",
        "HF_HOME",
        hub[1].HF_HUB_CACHE,
    )
    assert "Traceback" not in refused("openai/no-such-clip", *said)


@pytest.mark.parametrize("answer", ["refused", "silent", "lost in name resolution"])
def test_a_hub_that_does_not_answer_is_not_waited_for(hub, answer):
    monkeypatch, constants = hub
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answer == "silent":
            server.listen()
        if answer == "lost in name resolution":
            monkeypatch.setattr(socket, "getaddrinfo", lambda *args: time.sleep(4) or [])
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        refused("openai/no-such-clip", constants.ENDPOINT, "hf download openai/no-such-clip")


def test_a_checkpoint_in_the_cache_is_read_without_the_hub(hub, clip):
    repo = Path(hub[1].HF_HUB_CACHE) / "models--tests--tiny"
    shutil.copytree(clip, repo / "snapshots" / "abc")
    for revision in ("main", "refs/pr/1"):
        (repo / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
        (repo / "refs" / revision).write_text("abc")
    ours = hf.load("tests/tiny").fingerprint
    assert ours == hf.load("tests/tiny@refs/pr/1").fingerprint == hf.load(str(clip)).fingerprint
    (repo / "snapshots" / "abc" / "model.safetensors").unlink()
    refused("tests/tiny", "hf download tests/tiny --local-dir tiny")
    refused("tests/tiny@refs/pr/1", "hf download tests/tiny --revision refs/pr/1 --local-dir tiny")


def test_a_checkpoint_is_fetched_when_the_hub_answers(hub, clip):
    import huggingface_hub

    def fetch(repo, local_files_only=False, **wanted):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not there")
        assert (repo, wanted["revision"]) == ("tests/tiny", "v2")
        return str(clip)

    monkeypatch, constants = hub
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(adaptkit.towers.hub, "host_answers", lambda url: True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert hf.load("tests/tiny@v2").dim == 16
