"""Weights of the towers that are trained, and the methods that train them."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from adaptkit import (
    Method,
    Pooled,
    Preprocess,
    Schedule,
    Task,
    adapt,
    load_classifier,
    method,
    predict,
    save_classifier,
    unit,
)
from adaptkit.methods.adapt import retarget
from adaptkit.methods.tuned_weights import TunedWeights, norm_weights
from adaptkit.testing import CLASSES, toy_backbone
from adaptkit.testing.toy import toy_tokenizer
from adaptkit.towers.clip import CLIPBackbone
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


def pixel_task(backbone, shots=2, classes=CLASSES, templates=("a photo of a {}.", "a drawing of a {}.")):
    """Some images a class, as pixels, and two sentences a class."""
    side, labels = backbone.model.vision_model.config.image_size, torch.arange(shots * len(classes)) % len(classes)
    prompts = [[template.format(name) for template in templates] for name in classes]
    with torch.no_grad():
        text = [backbone.encode_text(own) for own in prompts]
    pixels = torch.randn(len(labels), 3, side, side, generator=torch.Generator().manual_seed(0))
    return Task.from_arrays((pixels, labels), text, classnames=classes, prompts=prompts, backbone=backbone), pixels


def fitted(name, task, **options):
    made = method(name, **options)
    made.fit(task.bind(made))
    return made


def with_preprocess(backbone):
    """A backbone of another test, with the preprocessing that pixels in memory ask the size of."""
    backbone.preprocess = Preprocess(
        size=backbone.model.vision_model.config.image_size, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    return backbone


@pytest.mark.parametrize("name", ["flyp", "fine-tuning"])
@pytest.mark.parametrize("make", [toy_backbone, lambda: with_preprocess(siglip())])
def test_fine_tuning_starts_as_zero_shot(name, make):
    task, pixels = pixel_task(make())
    want = predict(adapt(method("zero-shot"), task), pixels)
    got = predict(fitted(name, task).eval(), pixels)
    assert torch.allclose(got, want, atol=1e-3 * float(want.abs().max())), f"untrained {name} must be zero-shot"


def test_a_caption_is_a_sentence_about_the_images_class():
    task, _ = pixel_task(toy_backbone())
    flyp, labels = fitted("flyp", task), torch.tensor([4, 0, 3] * 30)
    flyp.counts = [1, 2, 3, 1, 3]
    rows = flyp.drawn_rows(labels)
    for c, own in ((4, {7, 8, 9}), (0, {0}), (3, {6})):
        assert {*rows[labels == c].tolist()} == own, f"class {c} must draw from all of its sentences; got {rows}"


@pytest.mark.parametrize("make", [toy_backbone, lambda: with_preprocess(siglip())])
def test_flyp_is_tuned_by_the_loss_of_its_pre_training(make):
    task, pixels = pixel_task(make())
    flyp, backbone = fitted("flyp", task), task.backbone
    rows = torch.arange(10) % 5 * 2
    flyp.drawn_rows = lambda labels: rows
    x = unit(backbone.encode_image(pixels))
    text = unit(backbone.encode_text([s for own in task.prompts for s in own]))[rows]
    logits = backbone.logit_scale * x @ text.T + backbone.logit_bias
    want = torch.zeros(())
    for i in range(10):
        for j in range(10):
            if backbone.logit_bias:
                want = want - torch.log(torch.sigmoid(logits[i, j] if i == j else -logits[i, j])) / 10
        if not backbone.logit_bias:
            want = want - (logits[i].log_softmax(0)[i] + logits[:, i].log_softmax(0)[i]) / 20
    got = flyp.loss(task.bind(flyp).support)
    assert torch.allclose(got, want, rtol=1e-3), f"the loss must be {want:.4f}; got {got:.4f}"
    assert flyp.bias.requires_grad == bool(backbone.logit_bias), "a bias is trained where there is one"


@pytest.mark.parametrize("name", ["flyp", "fine-tuning"])
def test_chunks_bound_the_memory_of_a_step_and_leave_its_gradient(name):
    task, _ = pixel_task(toy_backbone())
    grads = []
    for chunk in (3, 64):
        made = fitted(name, task, chunk=chunk)
        torch.manual_seed(0)
        made.loss(task.bind(made).support).backward()
        grads.append(torch.cat([p.grad.flatten() for p in made.parameters() if p.requires_grad]))
    assert torch.allclose(*grads, atol=1e-4 * float(grads[0].abs().max())), "the gradient must not depend on the chunk"


def test_flyp_answers_for_other_classes_by_the_text_tower_that_it_tuned(toy):
    task, queries = toy
    flyp = adapt(method("flyp", schedule={"epochs": 3, "lr": 1e-3, "batch_size": 16}), task)
    names = ("owl", "wolf")
    other = replace(task, classnames=names, prompts=tuple((f"a photo of a {n}.",) for n in names), val=None)
    other = replace(other, support=task.support[:0])
    tuned = retarget(flyp, other)
    with flyp.tuned.placed("text"), torch.no_grad():
        text = unit(task.backbone.encode_text([f"a photo of a {n}." for n in names]))
    with flyp.tuned.placed("image"), torch.no_grad():
        x = unit(task.backbone.encode_image(queries[:6].bind(flyp.needs()).pixels))
    want = flyp.log_scale.exp() * x @ text.T
    assert torch.allclose(predict(tuned, queries[:6]), want, atol=1e-3), "with the tuned towers and the new names"
    frozen = predict(adapt(method("zero-shot"), other), queries[:6])
    assert not torch.allclose(want, frozen, atol=0.1), "which are not the frozen ones"


@pytest.mark.parametrize("spec", ["flyp", "fine-tuning", {"trans-clip": {"base": "flyp"}}])
def test_fine_tuned_towers_are_exported_whole_and_composed(spec, toy, tmp_path):
    task, queries = toy
    schedule = {"steps": 2, "lr": 1e-3}
    options = {"base": {"flyp": {"schedule": schedule}}} if isinstance(spec, dict) else {"schedule": schedule}
    made = adapt(method(spec, **options), task)
    save_classifier(tmp_path, made, task, backbone="toy:0")
    again = load_classifier(tmp_path)
    assert torch.equal(again(queries[:8]), predict(made, queries[:8])), "it must answer as before, bit for bit"


def test_the_rate_rises_by_the_step_and_then_falls_to_zero():
    schedule = method("flyp", schedule={"lr": 0.8, "warmup_steps": 4}).schedule
    rates = [schedule.rate(step, per_epoch=3, total=10) for step in range(10)]
    want = [0.2, 0.4, 0.6, 0.8] + [0.4 * (1 + math.cos(math.pi * i / 6)) for i in range(6)]
    assert rates == pytest.approx(want), f"got {rates}"
    few = [schedule.rate(step, per_epoch=1, total=3) for step in range(3)]
    assert few == pytest.approx(want[:3]), "also where training ends before the warm-up"


FLYP = {"flyp": {"schedule": {"steps": 3, "lr": 1e-3, "batch_size": 16}}}


@pytest.mark.parametrize(
    "base", [FLYP, {"coop": {"n": 4, "init": "a photo of a", "schedule": {"steps": 3, "lr": 0.1}}}]
)
def test_a_mixture_lies_between_zero_shot_and_what_was_learned(base, toy):
    task, queries = toy
    task = replace(task, prompts=tuple((f"a photo of a {name}.",) for name in task.classnames))
    torch.manual_seed(0)
    mixture = adapt(method("wise-ft", base=base), task)
    answers = {}
    for alpha in (0.0, 0.5, 1.0):
        mixture.set({"alpha": alpha})
        answers[alpha] = predict(mixture, queries[:6])
    assert torch.equal(answers[1.0], predict(mixture.base, queries[:6])), "all of it must be the base, bit for bit"
    zero_shot = predict(adapt(method("zero-shot"), task), queries[:6])
    assert torch.allclose(answers[0.0], zero_shot, atol=0.02), "and none of it the base before it was trained"
    half, state = copy.deepcopy(mixture.base), mixture.base.state_dict()
    for name, low in zip(mixture.names, mixture.before, strict=True):
        state[name] = (low + state[name]) / 2
    half.load_state_dict(state)
    assert torch.allclose(predict(half, queries[:6]), answers[0.5], atol=1e-3), "half of it the mean of the weights"
    assert not torch.allclose((answers[0.0] + answers[1.0]) / 2, answers[0.5], atol=1e-3), (
        "which is not that of answers"
    )


def test_two_states_of_one_method_are_mixed_and_others_are_refused(toy):
    task, queries = toy
    adapter = {"clip-adapter": {"schedule": {"steps": 4, "lr": 0.1}}}
    pair = adapt(method("wise-ft", base=adapter, other=copy.deepcopy(adapter), alpha=0.0), task)
    assert torch.allclose(predict(pair, queries[:6]), predict(pair.other, queries[:6])), "at 0 it must be the other"
    pair.set({"alpha": 1.0})
    assert torch.allclose(predict(pair, queries[:6]), predict(pair.base, queries[:6])), "and at 1 the base"
    assert not any("started" in vars(part) for part in (pair.base, pair.other)), "no further copy may be kept"
    with pytest.raises(ValueError, match="other must be the same method as base where mix is 'weights'; got GDA"):
        adapt(method("wise-ft", base=adapter, other="gda"), task)
    wide = {"clip-adapter": {"reduction": 2, "schedule": {"steps": 1}}}
    with pytest.raises(ValueError, match=r"other must have weights of base's shapes; got another 'adapter\.0\.weight'"):
        adapt(method("wise-ft", base=adapter, other=wide), task)
    both = adapt(method("wise-ft", base=adapter, other="gda", mix="answers", alpha=0.3), task)
    want = 0.7 * predict(both.other, queries[:6]) + 0.3 * predict(both.base, queries[:6])
    assert torch.allclose(predict(both, queries[:6]), want, atol=1e-4), "but the answers of any two can be mixed"


def test_the_share_may_be_chosen_on_validation_images(toy):
    task, _ = toy
    worse = {"clip-adapter": {"ratio": 1.0, "schedule": {"steps": 30, "lr": 1e-5}}}  # begins as noise, and stays it
    found = adapt(method("wise-ft", base=worse, mix="answers", alphas=[0.0, 0.5, 1.0]), task)
    assert found.alpha == 0.0, f"zero-shot must be chosen over noise; got {found.alpha}"
    assert not method("wise-ft").grid(), "without shares to try there must be no search"


def test_what_a_base_inside_learned_is_mixed_too(toy):
    task, queries = toy
    inner = adapt(method("wise-ft", base={"trans-clip": {"base": FLYP}}), task)
    assert inner.scope == "set" and inner.names, "a transductive base keeps its scope, and what its own base learned"
    outer = adapt(method("wise-ft", base={"wise-ft": {"base": FLYP, "mix": "answers", "alpha": 1.0}}, alpha=0.0), task)
    want = predict(adapt(method("zero-shot"), task), queries[:20])
    assert torch.allclose(predict(outer, queries[:20]), want, atol=0.02), "which is mixed as if it were the outer's"


def test_fisher_information_decides_number_by_number(toy):
    task, queries = toy
    torch.manual_seed(0)
    base = {"fine-tuning": {"schedule": {"steps": 2, "lr": 1e-3, "warmup_steps": 0}}}
    mixture = adapt(method("wise-ft", base=base, fisher=True, floor=1e-12), task)
    i, mixed, end = mixture.names.index("bias"), mixture.mixed(), mixture.base.state_dict()
    f, g, low = (mixture.trust[0][i], mixture.trust[1][i], mixture.before[i])
    assert torch.allclose(mixed["bias"], (f * low + g * end["bias"]) / (f + g)), "each number by its own information"
    assert f.shape == low.shape and (g > 0).all(), "which the support has about every class"
    assert predict(mixture, queries[:4]).isfinite().all(), "and it answers"


@pytest.mark.parametrize("spec", [{"base": FLYP}, {"base": FLYP, "mix": "answers"}])
def test_a_mixture_is_exported_and_answers_for_other_classes(spec, toy, tmp_path):
    task, queries = toy
    mixture = adapt(method("wise-ft", **spec), task)
    save_classifier(tmp_path, mixture, task, backbone="toy:0")
    assert torch.equal(load_classifier(tmp_path)(queries[:8]), predict(mixture, queries[:8])), "bit for bit"
    fewer = replace(task, classnames=task.classnames[1:], prompts=task.prompts[1:], support=task.support[:0], val=None)
    got, want = predict(retarget(mixture, fewer), queries[:8]), predict(mixture, queries[:8])[:, 1:]
    assert torch.allclose(got, want, atol=1e-3), "the columns of classes that stay must stay"


def test_clip_cite_adds_up_its_three_parts_as_written():
    task, pixels = pixel_task(toy_backbone(), shots=2)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 4, 4, 2])
    cite = fitted("clip-cite", task, align=0.7, distil=0.3)
    for p in cite.parameters():
        p.data += 0.02 * torch.randn_like(p)
    support = task.bind(cite).support.label(labels)
    before = task.backbone.logit_scale * unit(task.backbone.encode_image(pixels)) @ task.text.T
    with cite.tuned.placed("text"), torch.no_grad():
        rows = [unit(task.backbone.encode_text(own)).mean(0) for own in task.prompts]
        text = unit(torch.stack(rows))
    with cite.tuned.placed("image"), torch.no_grad():
        after = task.backbone.logit_scale * unit(task.backbone.encode_image(pixels)) @ text.T
    parts = torch.zeros(3)
    for i, y in enumerate(labels.tolist()):
        parts[0] -= after[i].log_softmax(0)[y] / 10
        alike = [j for j in range(10) if labels[j] == y]
        to_texts = torch.stack([after[i, labels[j]] for j in range(10)]).log_softmax(0)
        to_images = after[:, y].log_softmax(0)
        for j in alike:
            parts[1] -= (to_texts[j] + to_images[j]) / 2 / len(alike) / 10
        p, q = before[i].softmax(0), after[i].softmax(0)
        parts[2] += sum(float(a) * math.log(float(a / b)) for a, b in zip(p, q, strict=True)) / 10
    want = float((parts @ torch.tensor([1.0, 0.7, 0.3])).detach())
    got = float(cite.loss(support).detach())
    assert got == pytest.approx(want, rel=1e-3), f"the loss must be {want:.5f}, of {parts.tolist()}; got {got:.5f}"
    assert parts[2] > 0, "and what is distilled must be something"


def one_block():
    """A random CLIP of one block to a tower, of other widths than the toy's."""
    from transformers import CLIPConfig, CLIPModel

    tower = {"num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 12, "hidden_size": 20}
    text = {**tower, "vocab_size": 96, "max_position_embeddings": 24, "eos_token_id": 95, "bos_token_id": 94}
    vision = {**tower, "hidden_size": 28, "image_size": 16, "patch_size": 8}
    config = CLIPConfig(text_config={**text, "pad_token_id": 0}, vision_config=vision, projection_dim=12)
    preprocess = Preprocess(size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return CLIPBackbone(CLIPModel(config), toy_tokenizer, preprocess)


@pytest.mark.parametrize("name", ["flyp", "clip-cite"])
def test_two_classes_one_shot_and_towers_of_one_block(name):
    task, pixels = pixel_task(one_block(), 1, ("a very long name", "b"))
    made = adapt(method(name, schedule={"steps": 2, "lr": 1e-3}), task)
    assert predict(made, pixels).shape == (2, 2), "the smallest task there is must be learned"


class Headed(Method):
    """A weight that it keeps for other classes, and a row for each class that it makes anew."""

    schedule: Schedule = Schedule(steps=2, lr=0.1)

    def needs(self):
        return {"x": Pooled()}

    def fit(self, task):
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.retarget(task)

    def retarget(self, task):
        self.rows = torch.nn.Parameter(task.text.clone())

    def forward(self, batch):
        return 10 * self.scale * batch.x @ self.rows.T


@pytest.mark.parametrize("count", [3, 5])
def test_what_a_base_makes_anew_for_other_classes_is_not_mixed(count, toy):
    task, queries = toy
    mixture = adapt(method("wise-ft", base=Headed()), task)
    assert sorted(mixture.names) == ["rows", "scale"], "both were trained"
    names = ("wolf", "hen", "bee", "ox", "emu")[:count]
    prompts = tuple((f"a photo of a {n}.",) for n in names)
    other = replace(task, classnames=names, prompts=prompts, support=task.support[:0], val=None)
    made = retarget(mixture, other)
    x = queries[:4].bind({"x": Pooled()}).x
    want = 10 * (1 + mixture.base.scale) / 2 * x @ other.text.T
    assert torch.allclose(predict(made, queries[:4]), want, atol=1e-4), "the new rows as they are, half of the weight"


def test_fine_tuning_is_that_of_a_model_trained_in_the_usual_way():
    task, pixels = pixel_task(toy_backbone())
    schedule = {"epochs": 2, "lr": 1e-3, "batch_size": 10, "weight_decay": 0.1, "warmup_steps": 1}
    made = adapt(method("fine-tuning", schedule=schedule), task)
    model = copy.deepcopy(task.backbone.model).requires_grad_(True)
    weight = torch.nn.Parameter(task.backbone.logit_scale * task.text)
    bias = torch.nn.Parameter(torch.zeros(5))
    tower = [p for name, p in model.named_parameters() if name.startswith("vis")]
    optimizer = torch.optim.AdamW([*tower, weight, bias], weight_decay=0.1)
    for rate in (1e-3, 1e-3):  # the first is the warm-up's last, the second the top of the cosine
        optimizer.param_groups[0]["lr"] = rate
        x = model.get_image_features(pixel_values=pixels).pooler_output
        loss = torch.nn.functional.cross_entropy(unit(x) @ weight.T + bias, torch.arange(10) % 5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        want = unit(model.get_image_features(pixel_values=pixels).pooler_output) @ weight.T + bias
    assert torch.allclose(predict(made, pixels), want, atol=2e-2), "the same steps must lead to the same answers"
    before = predict(adapt(method("zero-shot"), task), pixels)
    assert not torch.allclose(before, want, atol=0.5), "and somewhere else"


@pytest.mark.parametrize("name", ["flyp", "clip-cite"])
def test_class_embeddings_follow_the_weights_and_are_not_computed_for_every_batch(name, monkeypatch):
    task, pixels = pixel_task(toy_backbone())
    made, backbone, calls = fitted(name, task).eval(), task.backbone, []
    encode = type(backbone).encode_text
    monkeypatch.setattr(type(backbone), "encode_text", lambda self, tokens: calls.append(0) or encode(self, tokens))
    first, state = predict(made, pixels, batch_size=2), copy.deepcopy(made.state_dict())
    assert len(calls) == 1, f"five batches must share one pass of the text tower; got {len(calls)}"
    for p in made.tuned.parameters():
        p.data += 0.05 * torch.randn_like(p)
    assert not torch.allclose(predict(made, pixels), first, atol=0.1), "other weights must give another answer"
    made.load_state_dict(state)
    assert torch.equal(predict(made, pixels, batch_size=2), first), "and loaded ones the answer before"


def test_views_are_slight_crops_that_are_never_mirrored():
    assert method("flyp").support_needs()["views"].augment == "slight-crop", "as CLIP was trained"
    ramp = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (200, 1, 3)))
    preprocess = Preprocess(size=40, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    views = torch.stack([preprocess.view(ramp, "slight-crop", str(i)) for i in range(30)])
    left, right = 255 * views[..., 0].mean((1, 2)), 255 * views[..., -1].mean((1, 2))
    assert (right - left > 150).all(), "no view may be mirrored, or smaller than nine tenths allow"
    assert len({round(float(x), 3) for x in left}) > 5, "and they must differ"
