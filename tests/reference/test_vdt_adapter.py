"""CLIP-A-self once more, in numpy loops with gradients by differences, from the paper (arXiv:2307.11661)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adaptkit import Schedule, Task, adapt, method, predict
from tests.reference.by_hand import close, slope, softmax, unit

SCALE, DIM = 9.0, 8
NAMES = ("q.weight", "k.weight", "v.weight", "out.weight", "out.bias", "norm.weight", "norm.bias")


def class_embeddings(state, sentences, ratio):
    """Mean of each class's raw sentence embeddings after they have attended to each other."""
    q, k, v, out, bias, gain, shift = state
    classes = []
    for rows in sentences:
        after = []
        for row in rows:
            attention = softmax(np.array([(q @ row) @ (k @ other) for other in rows]) / np.sqrt(len(q)))
            mixed = out @ sum(a * (v @ other) for a, other in zip(attention, rows, strict=True)) + bias
            blend = 2 * (ratio * mixed + (1 - ratio) * row)
            after.append(gain * (blend - blend.mean()) / np.sqrt(blend.var() + 1e-5) + shift)
        classes.append(np.mean(after, axis=0))
    return unit(np.array(classes))


def trained(state, sentences, x, y, ratio, epochs):
    """Full-batch SGD with momentum and weight decay: one epoch of warm-up, then a cosine by epochs."""

    def loss(state):
        p = softmax(SCALE * x @ class_embeddings(state, sentences, ratio).T)
        return -np.log(p[np.arange(len(y)), y]).mean()

    speed = [0] * len(state)
    for epoch in range(epochs):
        rate = 2e-3 / 2 * (1 + np.cos(np.pi * (epoch - 1) / epochs)) if epoch else 1e-5
        for i, w in enumerate(state):
            gradient = slope(lambda w, i=i, state=state: loss([*state[:i], w, *state[i + 1 :]]), w)
            speed[i] = 0.9 * speed[i] + gradient + 5e-4 * w
        state = [w - rate * s for w, s in zip(state, speed, strict=True)]
    return state


@pytest.mark.parametrize(("epochs", "ratio"), [(0, 0.5), (0, 0.2), (4, 0.5)])
def test_vdt_adapter_is_the_papers(epochs, ratio):
    rng = np.random.default_rng(0)
    sentences = [rng.standard_normal((t, DIM)) for t in (3, 2, 4)]
    x, y = unit(rng.standard_normal((6, DIM))), np.array([0, 1, 2, 0, 1, 2])
    queries = unit(rng.standard_normal((10, DIM)))
    task = Task.from_arrays((x, y), sentences, logit_scale=SCALE)
    fits = []
    for n in (0, epochs):
        torch.manual_seed(0)
        schedule = replace(method("vdt-adapter").schedule, epochs=n, batch_size=6)
        options = {"ratio": ratio, "dropout": 0.0, "attention_dropout": 0.0, "schedule": schedule}
        fits.append(adapt(method("vdt-adapter", **options), task))
    start = [fits[0].state_dict()[name].double().numpy().copy() for name in NAMES]
    before = SCALE * queries @ class_embeddings(start, sentences, ratio).T
    close(predict(fits[0], queries), before, "the logits before training")
    after = SCALE * queries @ class_embeddings(trained(start, sentences, x, y, ratio, epochs), sentences, ratio).T
    moved = predict(fits[1], queries) - predict(fits[0], queries)
    close(moved + 1e-9, after - before + 1e-9, "what training changed", 0.01)


def test_the_head_has_a_quarter_of_the_width_and_starts_as_released():
    rows = np.random.default_rng(0).standard_normal((2, 256))
    schedule = method("vdt-adapter").schedule
    released = {"epochs": 10, "lr": 2e-3, "batch_size": 1, "optimizer": "sgd", "weight_decay": 5e-4, "warmup": 1}
    assert schedule == Schedule(**released, decay="cosine-epoch", drop_last=True), (
        f"the released schedule; got {schedule}"
    )
    schedule = replace(schedule, epochs=0)
    state = adapt(method("vdt-adapter", schedule=schedule), Task.from_arrays((rows, [0, 1]), rows)).state_dict()
    assert state["q.weight"].shape == (64, 256), f"the head must be 64 wide; got {state['q.weight'].shape}"
    for name, gain in (("q", 1.0), ("k", 1.0), ("v", 0.67), ("out", 0.67)):  # Xavier's normal
        spread, want = state[f"{name}.weight"].std().item(), gain * np.sqrt(2 / (256 + 64))
        assert abs(spread / want - 1) < 0.03, f"{name} must start with a spread of {want:.3g}; got {spread:.3g}"
