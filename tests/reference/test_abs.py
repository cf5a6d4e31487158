"""ABS: where its boxes lie, what is cut out of them, and how they are matched with sentences."""

import copy
import itertools
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adaptkit_plugins.zero_shot import abs as plugin

from adaptkit import Task, adapt, method, predict
from adaptkit.testing.toy import CLASSES, ToyImages, toy_backbone


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_a_box_trusts_the_sentences_most_like_it():
    rng = np.random.default_rng(0)
    text = [rng.standard_normal((m, 5)) for m in (2, 4, 1)]
    crops = rng.standard_normal((8, 6, 5))
    nothing = (np.zeros((0, 5)), np.zeros(0, int))
    abs_ = adapt(method("abs", temperature=0.2), Task.from_arrays(nothing, text))
    got = predict(abs_, {"crops": crops.astype(np.float32)}).numpy()
    for n in range(8):
        want = np.zeros(3)
        for box in unit(crops[n]):
            s = [[box @ row / 0.2 for row in unit(rows)] for rows in text]
            total = sum(math.exp(v) for own in s for v in own)
            want += [sum(math.exp(v) / total * v for v in own) for own in s]
        assert abs(got[n] - want).max() < 1e-4, f"image {n} must have {want}; got {got[n]}"


def test_sentences_may_come_from_a_file(tmp_path):
    file = tmp_path / "texts.json"
    file.write_text(json.dumps({c: [f"{c} one", f"{c} two"] for c in CLASSES}))
    backbone, n = toy_backbone(), len(CLASSES)
    nothing = (torch.zeros(0, 3, 32, 32), torch.zeros(0))
    task = Task.from_arrays(nothing, torch.randn(n, backbone.dim), classnames=CLASSES, backbone=backbone)
    rows = adapt(method("abs", file=str(file)), task).rows
    want = backbone.encode_text([f"{c} {i}" for c in CLASSES for i in ("one", "two")]).numpy()
    assert np.allclose(rows.numpy(), unit(want), atol=1e-5), "two sentences a class, in its order"


def attention(model, pixels):
    """The library's own attention, from the class token to the patches, in the last block: ``(B, P)``."""
    eager = copy.deepcopy(model.vision_model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        return eager(pixel_values=pixels, output_attentions=True).attentions[-1].mean(1)[:, 0, 1:]


def pixels(n=3):
    images = ToyImages("crops", n)
    return torch.stack([toy_backbone().preprocess(images.image(i)) for i in range(n)])


def need(**options):
    return method("abs", **{"crops": 7, "top": 3, "sides": (0.3, 0.8), **options}).needs()["crops"]


def test_attention_is_the_class_tokens():
    want = attention(toy_backbone().model, pixels())
    assert torch.allclose(plugin.attention(toy_backbone(), pixels()), want, atol=1e-5)


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
def test_boxes_are_drawn_around_the_patches_with_most_attention():
    weights = torch.rand(5, 4, 4, generator=torch.Generator().manual_seed(1)) / 10
    weights = F.pad(weights, (4, 4, 4, 4)).flatten(1)  # all in the middle, where no box is cut off
    for b, kind in itertools.product(range(5), ("pixels", "tokens")):
        tokens, size = kind == "tokens", 12 if kind == "tokens" else 60
        best = sorted(range(144), key=lambda i: -weights[b, i])[:3]
        p = torch.softmax(weights[b, best] / 0.03, 0)
        left, top, right, bottom = need(crops=4000, sides=(0.2, 0.4)).boxes(weights, size, tokens)[b].T
        wide, high = (right - left).unique().tolist(), (bottom - top).unique().tolist()
        want = {"pixels": list(range(12, 25, 2)), "tokens": [3, 5]}[kind]  # int(0.2 H) to int(0.4 H), halved
        assert wide == high == want, f"sides of {kind} must be {want}; got {wide} and {high}"
        assert torch.equal(right - left, bottom - top) == tokens, "boxes of tokens are squares, others are not"
        middle = (torch.stack([left, top], 1) + torch.stack([right, bottom], 1) - 1) // 2 * 12 // size
        chosen = middle[:, 0] + 12 * middle[:, 1]
        share = torch.stack([(chosen == i).float().mean() for i in best])
        assert torch.allclose(share, p, atol=0.03), f"patches must be drawn like {p}; got {share}"


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
@pytest.mark.parametrize(("grid", "widths"), [(14, {9, 11, 13}), (7, {5, 7}), (16, {9, 11, 13, 15})])
def test_boxes_of_tokens_have_the_widths_of_the_release(grid, widths):
    one = torch.zeros(1, 14, 14)
    one[0, 7, 7] = 9  # all of the attention; the guide has 14 patches a side, as DINO's ViT-B/16
    left, _, right, _ = need(crops=2000, top=1, sides=(0.6, 0.9)).boxes(one.flatten(1), grid, tokens=True)[0].T
    centre = 7 * grid // 14
    assert set((right - left).tolist()) == {min(grid, centre + w // 2 + 1) - max(0, centre - w // 2) for w in widths}, (
        "a side of int(0.6 H) to int(0.9 H) tokens, halved, on either side of the patch, as far as the grid goes"
    )


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_crops_are_what_the_tower_says_of_each_box(fit):
    backbone, x, crops = copy.copy(toy_backbone()), pixels(), need()
    backbone.preprocess = plugin.replace(backbone.preprocess, fit=fit)
    vision = backbone.model.vision_model
    weights = attention(backbone.model, x)
    with torch.no_grad():
        got = crops.compute(backbone, x)
        for b in range(len(x)):
            tokens = vision.encoder.layers[0](vision.pre_layrnorm(vision.embeddings(x[b, None])), None)
            grid = tokens[0, 1:].T.unflatten(1, (4, 4))
            for i in range(7):
                left, top, right, bottom = crops.boxes(weights, 32)[b, i].tolist()
                if fit == "crop":  # the shorter side is brought to the tower's, and of the longer the middle is taken
                    side = min(right - left, bottom - top)
                    left, top = left + (right - left - side) // 2, top + (bottom - top - side) // 2
                    right, bottom = left + side, top + side
                box = F.interpolate(x[b, None, :, top:bottom, left:right], (32, 32), mode="bicubic", antialias=True)
                want = backbone.encode_image(box)[0]
                assert torch.allclose(got[b, i], want, atol=1e-4), f"box {i} of image {b}"
                left, top, right, bottom = crops.boxes(weights, 4, tokens=True)[b, i].tolist()
                own = F.interpolate(grid[None, :, top:bottom, left:right], (4, 4), mode="bicubic")[0].flatten(1).T
                out = vision.encoder.layers[1](torch.cat([tokens[:, :1], own[None]], 1), None)[:, 0]
                want = backbone.model.visual_projection(vision.post_layernorm(out))[0]
                assert torch.allclose(got[b, 7 + i], want, atol=1e-4), f"box {i} of the tokens of image {b}"


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
def test_the_release_takes_fifty_boxes_of_each_kind():
    assert method("abs").crops == 50, "the release's --num_crops"


def test_a_guide_sees_the_image_as_it_wants_it_and_is_part_of_the_key(monkeypatch):
    guide, seen = copy.copy(toy_backbone("1")), []
    guide.preprocess = plugin.replace(guide.preprocess, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    guide.image = lambda rows, project: seen.append(rows) or toy_backbone("1").image(rows, project)
    monkeypatch.setattr(plugin, "tower", {"toy:1": guide, "toy:2": toy_backbone("2")}.__getitem__)
    got = need(guide="toy:1").compute(toy_backbone(), pixels())
    raw = pixels() * 0.25 + 0.5
    want = (raw - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 0.6, 0.7])[:, None, None]
    assert torch.allclose(seen[0], want, atol=1e-5)
    assert not torch.allclose(got, need().compute(toy_backbone(), pixels())), "another guide, other boxes"
    keys = [need(guide=name).describe()["guide"] for name in ("", "toy:1", "toy:2")]
    assert keys == ["", toy_backbone("1").fingerprint, toy_backbone("2").fingerprint]


def test_a_guide_without_class_token_is_refused():
    backbone = copy.copy(toy_backbone())
    with (
        backbone.taps({"image.tokens": lambda _, out: out[:, 1:]}),
        pytest.raises(ValueError, match="guide must have a class token and a square of patches; got 16 tokens"),
    ):
        plugin.attention(backbone, pixels())
