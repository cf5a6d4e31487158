"""Weights swapped inside a block: as if the model had them, with gradients, and no trace of them afterwards."""

import contextlib
import copy
import re

import pytest
import torch
from torch import nn

from adaptkit import (
    Backbone,
    Method,
    Pixels,
    Pooled,
    Schedule,
    ZeroShot,
    adapt,
    load_classifier,
    predict,
    save_classifier,
    unit,
)
from adaptkit.features.items import Images
from adaptkit.methods.adapt import accuracy
from adaptkit.saving import state
from adaptkit.testing import check, toy_backbone
from adaptkit.testing.checks import CHECKS
from adaptkit.towers.points import Point
from adaptkit.towers.prompting import Prompts
from tests.test_prompting import Masked, siglip

SENTENCES = ["a photo of a cat.", "a drawing of an owl"]


@pytest.fixture
def backbone():
    made = toy_backbone.__wrapped__("0")
    digest = made.digest()
    yield made
    assert made.digest() == digest, "no block may leave a trace"
    assert all(isinstance(p, nn.Parameter) for p in made.model.parameters()), "nor anything but parameters"


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 32, 32)


def test_every_weight_has_a_neutral_name_and_is_what_it_says(backbone):
    names, model = backbone.weight_names(), backbone.model
    assert len(names) == len(set(names)) == len(list(model.named_parameters())) - 1, "all but the logit scale"
    block = model.vision_model.encoder.layers[1]
    for name, want in {
        "image.projection": model.visual_projection.weight,
        "text.projection.weight": model.text_projection.weight,
        "image.block.1.q.weight": block.self_attn.q_proj.weight,
        "image.block.-1.fc1.bias": block.mlp.fc1.bias,
        "image.block.1.norm1.weight": block.layer_norm1.weight,
        "image.block.-1.norm2": block.layer_norm2.weight,
        "image.norm.weight": model.vision_model.post_layernorm.weight,
        "image.prenorm.bias": model.vision_model.pre_layrnorm.bias,
        "text.norm.bias": model.text_model.final_layer_norm.bias,
        "text.tokens": model.text_model.embeddings.token_embedding.weight,
        "text.positions": model.text_model.embeddings.position_embedding.weight,
        "image.tokens.class_embedding": model.vision_model.embeddings.class_embedding,
    }.items():
        got = backbone.weight(name)
        assert got.data_ptr() == want.data_ptr() and not got.requires_grad, f"{name} must be that weight, frozen"
    assert not [name for name in names if name.startswith("model.")], "none of CLIP's is without a name of its own"


@pytest.mark.parametrize("make", [siglip, Masked])
def test_other_backbones_have_the_names_of_what_they_have(make):
    backbone = make()
    names, before = backbone.weight_names(), backbone.digest()
    weights = {id(p) for n, p in backbone.model.named_parameters() if "logit" not in n}
    assert len(names) == len(weights), "every weight must have a name"
    assert "text.tokens.weight" in names, f"got {names}"
    plain = backbone.encode_text(SENTENCES)
    with backbone.weights({name: backbone.weight(name) + 0.1 for name in names}):
        assert not torch.allclose(backbone.encode_text(SENTENCES), plain), "the answers must be those of the others"
    assert torch.equal(backbone.encode_text(SENTENCES), plain) and backbone.digest() == before, "and then as before"
    if make is siglip:
        assert {"image.head.probe", "text.projection.weight", "image.block.0.norm2.bias"} <= {*names}


def test_swapped_weights_answer_as_a_model_that_has_them(backbone, pixels):
    values = {name: w + 0.1 * torch.randn_like(w) for name in backbone.weight_names() for w in [backbone.weight(name)]}
    other = toy_backbone.__wrapped__("0")
    other.model = copy.deepcopy(other.model)
    for name, value in values.items():
        backbone_slot = backbone.slots()[name]
        path = next(n for n, m in backbone.model.named_modules() if m is backbone_slot.module)
        other.model.get_submodule(path)._parameters[backbone_slot.attribute].data.copy_(value)
    want = other.model.get_image_features(pixel_values=pixels).pooler_output
    with backbone.weights(values):
        assert torch.equal(backbone.encode_image(pixels), want), "the image tower must compute with them, bit for bit"
        assert not torch.equal(want, toy_backbone().encode_image(pixels)), "which are others"


def test_gradients_reach_swapped_weights_and_no_frozen_one(backbone, pixels):
    names = ["image.projection", "image.block.0.q", "image.norm.weight", "text.block.1.fc1.bias"]
    values = {name: backbone.weight(name).clone().requires_grad_() for name in names}
    with backbone.weights(values):
        out = backbone.encode_image(pixels).sum() + backbone.encode_text(SENTENCES).sum()
    out.backward()
    assert all(v.grad.abs().sum() > 0 for v in values.values()), "also where the backward pass comes after the block"
    assert all(p.grad is None and not p.requires_grad for p in backbone.model.parameters()), "the model stays frozen"


def test_blocks_nest_and_close_one_by_one(backbone, pixels):
    plain, w = backbone.encode_image(pixels), backbone.weight("image.projection").clone()
    with backbone.weights({"image.projection": 2 * w}):
        with backbone.weights({"image.projection": 3 * w, "image.norm.bias": torch.ones(32)}):
            assert torch.equal(backbone.weight("image.projection"), 3 * w), "the inner weights must be in effect"
            with backbone.unaltered():
                assert torch.equal(backbone.encode_image(pixels), plain), "unaltered must mean frozen, however deep"
            assert torch.equal(backbone.weight("image.projection"), 3 * w), "and then swapped again"
        assert torch.allclose(backbone.encode_image(pixels), 2 * plain), "the outer alone"
    assert torch.equal(backbone.encode_image(pixels), plain), "none"


def test_an_exception_leaves_no_trace(backbone, pixels):
    plain, w = backbone.encode_image(pixels), backbone.weight("image.projection").clone()
    outer, inner = {"image.projection": 2 * w}, {"text.projection": 0 * backbone.weight("text.projection")}
    with contextlib.suppress(RuntimeError), backbone.weights(outer), backbone.weights(inner):
        raise RuntimeError("inside")
    assert torch.equal(backbone.encode_image(pixels), plain), "the weights must be back"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"image.projektion": torch.ones(1)}, r"weight must be one of .*; got 'image.projektion'; .*'image.projection"),
        ({"image.block.-3.q": torch.ones(1)}, r"must be one of .*; got 'image.block.-3.q'"),
        ({"image.projection": torch.ones(3)}, r"weight 'image.projection' must have shape \(16, 32\); got \(3,\)"),
        ({"image.norm.bias": torch.ones(32, device="meta")}, r"'image.norm.bias' must be on cpu.*; got meta"),
        ({"logit_scale": torch.ones(())}, r"must be one of .*; got 'logit_scale'"),
    ],
)
def test_a_wrong_name_shape_or_device_is_a_one_line_error(values, words, backbone):
    good = {"text.projection": 2 * backbone.weight("text.projection")}
    with pytest.raises(ValueError, match=words) as caught, backbone.weights(good | values):
        pass
    assert "\n" not in str(caught.value), "one line"


def test_no_answer_is_remembered_under_other_weights(backbone):
    prompts, w = Prompts(backbone, ["cat", "owl"], init="a photo of a"), backbone.weight("text.projection").clone()
    words, calls, encode = prompts.words(), [], type(backbone).encode_text
    backbone.encode_text = lambda tokens: calls.append(0) or encode(backbone, tokens)
    plain = prompts.encode(words)
    for _ in range(2):
        with backbone.weights({"text.projection": 2 * w}):
            assert torch.allclose(prompts.encode(words), 2 * plain), "the weights of the block must answer"
            assert torch.allclose(prompts.encode(words), 2 * plain), "each time"
        assert torch.equal(prompts.encode(words), plain), "and outside of it the frozen ones"
    assert len(calls) == 5, "an answer under the same weights is computed once"
    learned = w.clone().requires_grad_()
    small = Prompts(backbone, ["cat", "owl", "fox"], init="a photo of a", chunk=1)
    with backbone.weights({"text.projection": learned}):
        out = small.encode(words.requires_grad_())
    out.square().sum().backward()
    assert learned.grad.abs().sum() > 0, "gradients must be those of the block, although it is over"


def test_what_the_cache_computes_inside_a_block_is_of_the_frozen_weights(toy, tmp_path):
    from adaptkit.testing import toy_task

    (task, queries), want = toy_task(home=tmp_path), toy[1].bind({"x": Pooled(projected=False)}).x
    with task.backbone.weights({"image.norm.weight": torch.zeros(32)}):
        got = queries.bind({"x": Pooled(projected=False)}).x
        sentence = task.encode(["a sentence that nobody has encoded"])
    assert torch.equal(got, want), "rows that outlive the block must be those of the frozen towers"
    with task.backbone.weights({"text.norm.weight": torch.zeros(24)}):
        assert torch.equal(task.encode(["another of these"]), task.encode(["another of these"]))
    assert torch.allclose(sentence, task.backbone.encode_text(["a sentence that nobody has encoded"]), atol=1e-6)
    x = torch.randn(2, 3, 32, 32)
    plain = Images.from_arrays(x)
    plain.rows.backbone = task.backbone
    want = plain.bind({"x": Pooled()}).x
    with task.backbone.weights({"image.projection": torch.ones(16, 32)}):
        assert torch.equal(plain.bind({"x": Pooled()}).x, want), "also of pixels that are given"


class Doubled(Point):
    """A point that intervenes without a hook."""

    def __init__(self, module):
        super().__init__(module)
        self.fns = []

    @contextlib.contextmanager
    def attach(self, fn):
        forward, self.module.forward = self.module.forward, lambda x: fn(x, forward(x))
        self.fns.append(fn)
        try:
            yield
        finally:
            self.module.forward = forward
            self.fns.remove(fn)

    @property
    def tapped(self):
        return bool(self.fns)


def test_a_point_may_intervene_otherwise_than_by_a_hook(backbone, pixels):
    plain = backbone.encode_image(pixels)
    backbone.points = {**backbone.points, "image.projection": Doubled(backbone.model.visual_projection)}
    with backbone.taps({"image.projection": lambda _, out: 2 * out}):
        assert torch.equal(backbone.encode_image(pixels), 2 * plain), "the point's own way must act"
        assert backbone.points["image.projection"].tapped and not backbone.points["image.norm"].tapped
    with backbone.points["image.norm"].attach(lambda x, out: 0 * out):
        assert not backbone.encode_image(pixels).any(), "a point can be attached to by itself"
    assert torch.equal(backbone.encode_image(pixels), plain), "and nothing may stay"
    assert backbone.points["image.block.-1"] is backbone.points["image.block.1"], "one point by both its names"
    assert Backbone.points.fget(Masked())["text.tokens"](torch.tensor([[1]])).shape == (1, 1, 12), "a point is called"


class NormTuning(Method):
    """LayerNorms of both towers."""

    schedule: Schedule = Schedule(steps=20, lr=1e-2, batch_size=10)

    def needs(self):
        return {"pixels": Pixels()}

    def fit(self, task):
        self.backbone, self.tokens = task.backbone, task.backbone.tokenize([s[0] for s in task.prompts])
        self.names = [name for name in task.backbone.weight_names() if "norm" in name]
        self.norms = nn.ParameterList(task.backbone.weight(name).clone() for name in self.names)

    def retarget(self, task):
        self.tokens = task.backbone.tokenize([s[0] for s in task.prompts])

    def forward(self, batch):
        with self.backbone.weights(dict(zip(self.names, self.norms, strict=True))):
            x, text = self.backbone.encode_image(batch.pixels), self.backbone.encode_text(self.tokens)
        return self.backbone.logits(unit(x), unit(text))


@pytest.fixture
def known(monkeypatch):
    """Let the toy method be saved under a name."""
    find, name_of = state._find, state._name
    monkeypatch.setattr(state, "_name", lambda cls: "norms" if cls is NormTuning else name_of(cls))
    monkeypatch.setattr(state, "_find", lambda name: NormTuning if name == "norms" else find(name))


def test_layer_norms_are_tuned_saved_averaged_and_given_back(toy, tmp_path, known):
    task, queries = toy
    digest, zero_shot = task.backbone.digest(), predict(adapt(ZeroShot(), task), queries)
    start = {f"norms.{i}": task.backbone.weight(n).clone() for i, n in enumerate(norm_names(task.backbone))}
    made = adapt(NormTuning(), task)
    tuned, learned = predict(made, queries), made.state_dict()
    assert set(learned) == set(start) and len(learned) == 22, "the state must be what is learned, and nothing else"
    assert not torch.allclose(tuned, zero_shot, atol=0.1), "it must have learned something"
    assert task.backbone.digest() == digest, "the backbone must be given back as it was"
    save_classifier(tmp_path / "x", made, task, backbone="toy:0")
    assert torch.equal(load_classifier(tmp_path / "x")(queries), tuned), "and the method be saved without it"

    half = {name: (start[name] + learned[name]) / 2 for name in learned}  # WiSE-FT
    made.load_state_dict(half)
    between = predict(made, queries)
    made.load_state_dict(start)
    assert torch.allclose(predict(made, queries), zero_shot, atol=1e-2), "all of the start must be zero-shot"
    assert not torch.allclose(between, tuned) and not torch.allclose(between, zero_shot), "half is neither"
    assert task.backbone.digest() == digest, "still as it was"


def norm_names(backbone):
    return [name for name in backbone.weight_names() if "norm" in name]


def test_training_that_fails_gives_the_backbone_back(toy):
    task, queries = toy
    digest = task.backbone.digest()

    class Fails(NormTuning):
        def loss(self, batch):
            with self.backbone.weights({"image.projection": torch.zeros(16, 32)}):
                super().loss(batch)
                raise RuntimeError("in the middle of training")

    with pytest.raises(RuntimeError, match="in the middle"):
        adapt(Fails(), task)
    assert task.backbone.digest() == digest, "the backbone must be given back as it was"
    assert accuracy(adapt(ZeroShot(), task), queries) > 0.5, "and answer as before"


@pytest.mark.parametrize("title", [title for title in CHECKS if title != "docstring_names_source"])
def test_a_method_over_swapped_weights_keeps_the_contract(title, toy):
    task, queries = toy
    steps = Schedule(steps=60 if title == "beats_chance" else 4, lr=1e-2, batch_size=10)
    check(title, lambda: NormTuning(schedule=steps), task, queries[:20])


def test_blocks_may_end_in_any_order():
    backbone = toy_backbone("0")
    before, w = backbone.digest(), backbone.weight("image.projection")
    one, two = backbone.weights({"image.projection": w + 1}), backbone.weights({"image.projection": w + 2})
    one.__enter__(), two.__enter__(), one.__exit__(None, None, None)
    assert torch.equal(backbone.weight("image.projection"), w + 2), "the block that goes on must be in effect"
    two.__exit__(None, None, None)
    assert backbone.digest() == before, "and at the end all must be as it was"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda w: {"image.projection": None}, "weight 'image.projection' must be a tensor; got NoneType"),
        (lambda w: {"image.projection": w.numpy()}, "must be a tensor; got ndarray"),
        (lambda w: {"image.projection": w.double()}, "must be torch.float32, as the backbone; got torch.float64"),
        (lambda w: {"image.projection": w, "image.projection.weight": w + 1}, "must be given once"),
    ],
)
def test_what_is_no_weight_is_refused_in_one_line(values, message):
    backbone = toy_backbone("0")
    with (
        pytest.raises(ValueError, match=re.escape(message)),
        backbone.weights(values(backbone.weight("image.projection"))),
    ):
        pass
    assert backbone.digest() == backbone.fingerprint, "and nothing must be changed"
