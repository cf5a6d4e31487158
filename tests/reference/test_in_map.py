"""InMaP once more, in numpy, from the paper (arXiv:2310.19752)."""

import adaptkit_plugins.transductive.in_map as in_map_plugin
import numpy as np
import pytest
import torch

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, softmax, texts_and_images, unit


def in_map(text, x, scale, tau_t=0.01, tau_i=0.04, alpha=0.6, gamma=0.0, balance=20, iterations=2000, lr=10.0):
    """Proxies in image space, learned from the queries' balanced labels."""
    n, classes = len(x), len(text)
    tau_t, tau_i = tau_t * 100 / scale, tau_i * 100 / scale
    p = softmax(x @ text.T / tau_t) / n
    q = p.sum(0) ** gamma / (p.sum(0) ** gamma).sum()  # what the classes shall weigh
    for _ in range(balance):
        p = p / p.sum(0) * q
        p = p / p.sum(1, keepdims=True) / n
    p = p * n
    for row in p:
        if row.max() > alpha:
            row[:] = np.arange(classes) == row.argmax()
    w, before = text.copy(), np.inf
    for _ in range(iterations):
        grad = (softmax(x @ w.T / tau_i) - p).T @ x
        now = np.linalg.norm(grad)
        lr, before = lr / 2 if now > before else lr, now
        w = unit(w - lr / (n * tau_i) * grad)
    return w


@pytest.mark.parametrize("scale", [100.0, 40.0])
@pytest.mark.parametrize(
    "options",
    [
        {"iterations": 60},
        {"gamma": 0.5, "alpha": 0.8, "balance": 3, "iterations": 30, "lr": 0.1},
        {"balance": 0, "iterations": 30, "tau_t": 0.02, "tau_i": 0.1},
    ],
)
def test_in_map_is_the_papers(options, scale):
    text, x, _ = texts_and_images(n=30, spread=1.0)
    got = predict(adapt(method("in-map", **options), Task.from_arrays((x[:0], []), text, logit_scale=scale)), x)
    close(got, scale * x @ in_map(text, x, scale, **options).T, "in-map's logits", 1e-3)


@pytest.mark.parametrize("iterations", [3000, 3001, 3063])
def test_iterations_that_come_round_again_are_left_out_and_nothing_changes(monkeypatch, iterations):
    text, x, _ = texts_and_images(n=40, spread=1.0)
    task, asked, slope = Task.from_arrays((x[:0], []), text), [], in_map_plugin.slope
    monkeypatch.setattr(in_map_plugin, "slope", lambda *given: asked.append(1) or slope(*given))
    model = adapt(method("in-map", iterations=iterations), task)
    short, took = predict(model, x), len(asked)
    monkeypatch.setattr(in_map_plugin, "ROUND", 10**9)
    whole = predict(model, x)
    assert len(asked) - took == iterations, "without rounds each iteration must be done"
    assert took < iterations / 2, f"rounds must be left out; got {took} of {iterations} iterations"
    assert torch.equal(short, whole), "what is left out must not change a bit"
