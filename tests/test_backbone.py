"""The one way into the towers, and the one way to interfere: taps that do nothing change nothing."""

import copy

import pytest
import torch

from adaptkit import Prompts
from adaptkit.testing import CLASSES, toy_backbone

SENTENCES = [f"a photo of a {'very ' * i}small {name}." for i, name in enumerate(CLASSES)]


@pytest.fixture
def backbone():
    return toy_backbone()


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 32, 32)


def plain_text(backbone, pad=0):
    """What `transformers` says itself, on sentences padded by that much more."""
    ids = backbone.tokenize(SENTENCES)["input_ids"]
    ids = torch.cat([ids, ids.new_zeros(len(ids), pad)], 1)
    return ids, backbone.model.get_text_features(input_ids=ids).pooler_output


def plain_image(backbone, pixels):
    return backbone.model.get_image_features(pixel_values=pixels).pooler_output


def close(got, want, what):
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)} must be {tuple(want.shape)}"
    worst = float((got - want).abs().max())
    assert worst <= 1e-5 * float(want.abs().max()), f"{what} must equal the plain forward pass; off by {worst:.2g}"


def test_sentences_and_images_are_encoded_as_transformers_does(backbone, pixels):
    close(backbone.encode_text(SENTENCES), plain_text(backbone)[1], "text")
    close(backbone.encode_image(pixels), plain_image(backbone, pixels), "an image")


def test_cutting_the_padding_off_changes_nothing(backbone):
    for pad in (0, 1, 12):
        ids, want = plain_text(backbone, pad)
        close(backbone.encode_text({"input_ids": ids}), want, f"text padded by {pad}")
    close(
        backbone.encode_text(SENTENCES[:1]), plain_text(backbone)[1][:1], "one sentence, without the padding of others"
    )


def test_an_image_before_its_projection_projects_to_its_embedding(backbone, pixels):
    pooled = backbone.encode_image(pixels, project=False)
    close(backbone.model.visual_projection(pooled), plain_image(backbone, pixels), "the projected image")


def test_the_words_of_a_sentence_give_the_sentence(backbone):
    tokens = backbone.tokenize(SENTENCES)
    words = backbone.words(tokens)
    with backbone.taps({"text.tokens": lambda _, out: words[:, : out.shape[1]]}):
        close(backbone.encode_text(tokens), plain_text(backbone)[1], "given words")
    prompts = Prompts(backbone, CLASSES, init="a photo of a")
    want = backbone.encode_text([f"a photo of a {name}." for name in CLASSES])
    close(prompts.encode(prompts.words()), want, "a context equal to its words")


def test_a_tap_that_returns_its_output_changes_nothing_at_any_point(backbone, pixels):
    seen = set()

    def tap(name):
        return lambda _, out: seen.add(name) or out

    with backbone.taps({name: tap(name) for name in backbone.points}):
        close(backbone.encode_text(SENTENCES), plain_text(backbone)[1], "text")
        close(backbone.encode_image(pixels), plain_image(backbone, pixels), "an image")
    assert seen == set(backbone.points), f"every point must be passed; {set(backbone.points) - seen} were not"


def test_a_low_rank_update_by_zero_changes_nothing(backbone, pixels):
    modules = {name: point.module for name, point in backbone.points.items() if ".block." in name}
    linears = {name: module for name, module in modules.items() if isinstance(module, torch.nn.Linear)}
    assert len(linears) == 6 * sum(backbone.depth.values()), "each block has six linear maps"

    def update(linear):
        a, b = torch.randn(2, linear.in_features), torch.zeros(linear.out_features, 2)
        return lambda x, out: out + x @ a.T @ b.T

    with backbone.taps({name: update(module) for name, module in linears.items()}):
        close(backbone.encode_text(SENTENCES), plain_text(backbone)[1], "text")
        close(backbone.encode_image(pixels), plain_image(backbone, pixels), "an image")


def test_a_low_rank_update_equals_changed_weights(backbone, pixels):
    name = "image.block.0.fc1"
    linear = backbone.points[name].module
    update = 0.1 * torch.randn_like(linear.weight)
    with backbone.taps({name: lambda x, out: out + x @ update.T}):
        got = backbone.encode_image(pixels)
    other = copy.deepcopy(backbone.model)
    other.vision_model.encoder.layers[0].mlp.fc1.weight.data += update
    close(got, other.get_image_features(pixel_values=pixels).pooler_output, "an update at fc1")


def test_points_are_what_their_names_say(backbone, pixels):
    kept = {}

    def keep(name):
        return lambda _, out: kept.setdefault(name, out)

    with backbone.taps(
        {n: keep(n) for n in ("image.tokens", "image.block.0", "image.block.-1", "text.tokens", "text.block.-1")}
    ):
        backbone.encode_image(pixels)
        backbone.encode_text(SENTENCES)
    hidden = backbone.model.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states
    close(kept["image.block.0"], hidden[1], "image.block.0")
    close(kept["image.block.-1"], hidden[-1], "image.block.-1")
    close(backbone.model.vision_model.pre_layrnorm(kept["image.tokens"]), hidden[0], "image.tokens")
    longest = int(backbone.ends(backbone.tokenize(SENTENCES)["input_ids"]).max()) + 1
    assert kept["text.tokens"].shape == (len(SENTENCES), longest, backbone.width["text"]), "words are (P, L, W)"
    assert kept["text.block.-1"].shape == kept["text.tokens"].shape, "tokens keep their shape"


def test_nested_taps_act_in_order_and_leave_one_by_one(backbone, pixels):
    plain = backbone.encode_image(pixels)
    with backbone.taps({"image.block.0": lambda _, out: out + 1}):
        once = backbone.encode_image(pixels)
        with backbone.taps({"image.block.0": lambda _, out: 2 * out}):
            twice = backbone.encode_image(pixels)
        close(backbone.encode_image(pixels), once, "the outer tap alone")
    with backbone.taps({"image.block.0": lambda _, out: 2 * (out + 1)}):
        close(backbone.encode_image(pixels), twice, "both in one")
    close(backbone.encode_image(pixels), plain, "no tap")


def test_taps_are_gone_after_an_error(backbone, pixels):
    plain = backbone.encode_image(pixels)

    def fail(_, out):
        raise RuntimeError("inside a tap")

    with pytest.raises(RuntimeError, match="inside a tap"), backbone.taps({"image.block.0": fail}):
        backbone.encode_image(pixels)
    with (
        pytest.raises(ValueError, match="must be one of"),
        backbone.taps({"image.block.0": fail, "image.blok.1": fail}),
    ):
        pass
    close(backbone.encode_image(pixels), plain, "an image after two errors")


def test_an_unknown_point_is_an_error_that_names_those_there_are(backbone):
    with (
        pytest.raises(ValueError, match=r"one of image\.tokens, .*text\.block\.1\.fc2.*; got 'text\.block\.7'"),
        backbone.taps({"text.block.7": max}),
    ):
        pass
    with pytest.raises(ValueError, match=r"must have tap point 'image\.block\.9'"):
        backbone.require("text.tokens", "image.block.9")


def test_gradients_reach_what_a_tap_adds_and_nothing_else(backbone, pixels):
    shift = torch.zeros(32, requires_grad=True)
    with backbone.taps({"image.block.0": lambda _, out: out + shift}):
        backbone.encode_image(pixels).sum().backward()
    assert shift.grad.abs().sum() > 0, "a gradient must reach the tap's own tensors"
    assert all(p.grad is None for p in backbone.model.parameters()), "no gradient may reach frozen weights"


def test_the_fingerprint_is_that_of_the_weights(backbone):
    assert backbone.digest() == backbone.fingerprint, "nothing has changed"
    weight = backbone.model.text_projection.weight
    kept = weight[0, 0].item()
    try:
        weight.data[0, 0] = kept + 1e-6
        assert backbone.digest() != backbone.fingerprint, "one changed weight must change the digest"
    finally:
        weight.data[0, 0] = kept
    assert backbone.digest() == backbone.fingerprint, "and its old value must bring it back"
    assert toy_backbone("1").fingerprint != backbone.fingerprint, "other weights, another fingerprint"


def test_a_deep_copy_is_the_same_backbone(backbone):
    assert copy.deepcopy({"held": backbone})["held"] is backbone, "weights are never copied with a method"


def test_logits_are_scaled_cosines_for_shared_and_for_own_class_embeddings(backbone):
    x, text = torch.randn(3, 16), torch.randn(5, 16)
    want = backbone.logit_scale * x @ text.T + backbone.logit_bias
    close(backbone.logits(x, text), want, "logits")
    close(backbone.logits(x, text.expand(3, -1, -1)), want, "logits of embeddings of each image's own")
