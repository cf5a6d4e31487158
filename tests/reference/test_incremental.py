"""Continual-CLIP, VR-LwF and CoDyRA with numpy, from the papers (arXiv:2210.03114, 2207.09248, 2412.01004)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adaptkit import Images, adapt, method, predict, unit
from adaptkit.methods.adapt import extend
from tests.reference.by_hand import softmax


def halves(toy):
    """The toy task in two: three classes, and all five with images of the last two."""
    task, queries = toy
    y = task.support.labels
    three = {"classnames": task.classnames[:3], "prompts": task.prompts[:3], "labelnames": ()}
    first = replace(task, **three, support=task.support[y < 3], val=None)
    return first, replace(task, support=task.support[y >= 3], val=None), queries[:12]


def crossed(logits, labels):
    return -np.log(softmax(logits)[np.arange(len(labels)), labels]).mean()


def brief(name, **options):
    return method(name, **options, schedule={"steps": 2, "lr": 1e-3})


def rows(x):
    return unit(x.detach()).double().numpy()


def test_continual_clip_is_the_cosine_to_every_class_so_far(toy):
    first, second, queries = halves(toy)
    made = adapt(method("continual-clip"), first)
    kept = made.text.clone()
    x = queries.bind(made.needs()).x
    extend(made, second)
    want = toy[0].backbone.logit_scale * rows(x) @ rows(toy[0].text).T
    assert np.allclose(predict(made, queries), want, atol=1e-4), "answers must be scaled cosines to all five"
    assert torch.equal(made.text[:3], kept), "what was known must stay bit for bit"


@pytest.mark.parametrize("step", [0, 1])
def test_the_loss_of_vr_lwf_is_a_cross_entropy_and_a_divergence_on_random_sentences(step, toy):
    first, second, _ = halves(toy)
    made, task = adapt(brief("vr-lwf", words=7, temperature=2.0, distil=0.5), first), first
    before = {n: p.detach().clone() for n, p in zip(made.tuned.names, made.tuned.values, strict=True)}
    if step:
        extend(made, second)
        task = second
    backbone, own = task.backbone, task.bind(made).support[:6]
    batch = Images.from_arrays({"views": own.views}, own.labels).bind(made.support_needs())
    pixels, words = batch.views[:, 0], made.draw()
    made.draw = lambda: words
    with torch.no_grad(), backbone.weights(before if step else {}):
        old = rows(backbone.encode_image(pixels)) @ rows(made.vocabulary.encode(words)).T
    with torch.no_grad(), made.tuned.placed("image"), made.tuned.placed("text"):
        x, v = rows(backbone.encode_image(pixels)), rows(made.vocabulary.encode(words))
        text = rows(backbone.encode_text([s for own in task.prompts for s in own]))
    scale, new = backbone.logit_scale, slice(3, None) if step else slice(None)
    p, q = softmax(scale * old / 2), softmax(scale * (x @ v.T) / 2)
    want = crossed((scale * x @ text.T)[:, new], batch.labels.numpy() - 3 * step)
    want += 0.5 * (p * np.log(p / q)).sum(1).mean()
    assert made.loss(batch).item() == pytest.approx(want, abs=1e-4), "both parts, against the towers before this task"
    assert (p != q).any(), "the towers must have moved, or the divergence holds for nothing"


@pytest.mark.parametrize("as_released", [False, True])
def test_ranks_of_co_dy_ra_shrink_in_the_second_half_and_stay_at_zero(as_released, toy):
    first, _, _ = halves(toy)
    made = adapt(brief("co-dy-ra", rank=4, threshold=0.0, as_released=as_released), first)
    weights = np.array([0.5, -0.05, 0.15, -0.3])
    for done, cost in ((0.5, 0.0), (0.75, 0.1), (1.0, 0.2)):
        made.threshold = 0.2
        for own in made.ranks:
            own.data.copy_(torch.tensor(weights))
        made.prune(done)
        want = np.sign(weights) * np.maximum(np.abs(weights) - cost, 0)
        if as_released:  # what is less than a threshold after the subtraction is zero too
            want[np.abs(want) < cost] = 0
        assert np.allclose(made.ranks[0].detach(), want, atol=1e-6), f"at {done} of all steps each must lose {cost}"


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
def test_co_dy_ra_starts_at_random_weights_and_has_a_second_loss_where_it_is_as_released(toy):
    first, second, _ = halves(toy)
    made = adapt(brief("co-dy-ra", rank=64, threshold=0.0, as_released=True), first)
    extend(made, second)
    assert np.abs(np.mean([w.detach().std() for w in made.ranks]) - 1) < 0.05, "weights start as a standard normal"
    own = second.bind(made).support[:6]
    batch = Images.from_arrays({"views": own.views}, own.labels).bind(made.support_needs())
    with torch.no_grad():
        x, text = rows(made.images(batch.views[:, 0])), rows(made.text())
    logits, y = second.backbone.logit_scale * x @ text.T, batch.labels.numpy()
    over_images = sum(-np.log(softmax(logits[:, c])[y == c]).sum() for c in range(5)) / 5
    want = crossed(logits[:, 3:], y - 3) + over_images
    assert made.loss(batch).item() == pytest.approx(want, abs=1e-4), "both cross-entropies, the second over all classes"


def test_co_dy_ra_adds_its_update_to_the_weights_before_the_next_task(toy):
    first, second, queries = halves(toy)
    made = adapt(brief("co-dy-ra", rank=3), first)
    answers, name = predict(made, queries), made.names[0]
    a, b, w = (part[0].detach().numpy() for part in (made.a, made.b, made.ranks))
    update = sum(w[i] * np.outer(b[:, i], a[i]) for i in range(3))
    with made.changed("image"):
        changed = first.backbone.weight(name).clone()
    assert np.allclose(changed - first.backbone.weight(name), update, atol=1e-6), "W + B diag(w) A"
    assert np.abs(update).max() > 1e-4, "two steps must have moved it"
    made.extend(second.bind(made))
    assert torch.allclose(predict(made.eval(), queries)[:, :3], answers, atol=1e-4), "merged, it must answer the same"
    assert np.allclose(made.merged[0], update, atol=1e-6) and not made.b[0].any(), "and the next update starts at zero"


@pytest.mark.parametrize("name", ["cpe-clip", "vr-lwf", "co-dy-ra"])
def test_a_task_without_new_classes_is_refused(name, toy):
    first, _, _ = halves(toy)
    made = adapt(brief(name), first)
    with pytest.raises(ValueError, match="a task must have classes beyond the 3 so far; got 3"):
        extend(made, first)


@pytest.mark.parametrize("name", ["cpe-clip", "vr-lwf", "co-dy-ra"])
def test_images_of_a_class_that_came_before_are_refused(name, toy):
    first, second, _ = halves(toy)
    made = adapt(brief(name), first)
    with pytest.raises(ValueError, match="a task must have images of its new classes alone; got 'cat'; leave them out"):
        extend(made, replace(second, support=toy[0].support))
