"""Weights of the towers that are trained, and the methods that train them."""

import pytest
import torch

from adaptkit.methods.tuned_weights import TunedWeights, norm_weights
from adaptkit.testing import toy_backbone
from tests.test_prompting import siglip

SENTENCES = ["a photo of a cat.", "a drawing of an owl", "a fox"]


@pytest.mark.parametrize("make", [toy_backbone, siglip])
def test_tuned_weights_start_as_the_towers_and_chunks_change_nothing(make):
    backbone = make()
    tuned, tokens = TunedWeights(backbone, backbone.weight_names()), backbone.tokenize(SENTENCES)
    side = backbone.model.vision_model.config.image_size
    pixels = torch.randn(3, 3, side, side)
    frozen, start = backbone.encode_image(pixels), tuned.encode_image(pixels)
    assert torch.allclose(start, frozen, atol=1e-5), "the start must be the frozen tower"
    grads = []
    for chunk in (2, 3):
        x, text = tuned.encode_image(pixels, chunk=chunk), tuned.encode_text(tokens, chunk=chunk)
        grads.append(torch.autograd.grad((x[:, 0] * text[:, 1]).sum(), list(tuned.parameters()), allow_unused=True))
    assert all(g is not None for g in grads[1]), "a gradient must reach every weight"
    for name, one, two in zip(tuned.names, *grads, strict=True):
        room = 1e-4 * float(two.abs().max() + 1)
        assert torch.allclose(one, two, atol=room), f"chunks must not change {name}'s gradient"
    assert all(p.grad is None for p in backbone.model.parameters()), "and none the frozen ones"


def test_norm_weights_are_those_of_every_layer_norm():
    backbone = toy_backbone()
    names = norm_weights(backbone)
    assert len(names) == 2 * (2 * 2 * 2 + 2 + 1), f"of four blocks, and around; got {names}"
    assert {"image.prenorm.weight", "text.block.1.norm2.bias"} <= {*names}, "gains and shifts"
    tuned = TunedWeights(backbone, names)
    assert sum(p.numel() for p in tuned.parameters()) == sum(backbone.weight(n).numel() for n in names), "and no other"
    assert len(tuned.of("text")) == 10 and len(tuned.of("image")) == 12, "each tower reads its own"
