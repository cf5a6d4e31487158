"""InMaP: Sinkhorn by hand, and proxies whose loss has no slope left along the sphere."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def reference(x, text, tau_t, tau_i, alpha, gamma, rounds, iterations, lr):
    p = np.exp(x @ text.T / tau_t)
    p /= p.sum(1, keepdims=True)
    share = p.sum(0) ** gamma / (p.sum(0) ** gamma).sum()
    for _ in range(rounds):
        for c in range(p.shape[1]):
            p[:, c] *= len(x) * share[c] / p[:, c].sum()
        for n in range(len(p)):
            p[n] /= p[n].sum()
    for n in range(len(p)):
        if p[n].max() > alpha:
            p[n] = np.eye(p.shape[1])[p[n].argmax()]
    w, last = text.copy(), np.inf
    for _ in range(iterations):
        s = np.exp(x @ w.T / tau_i)
        s /= s.sum(1, keepdims=True)
        slope = sum(np.outer(s[n] - p[n], x[n]) for n in range(len(x)))
        lr = lr / 2 if np.linalg.norm(slope) > last else lr
        last = np.linalg.norm(slope)
        w = unit(w - lr / (len(x) * tau_i) * slope)
    return x @ w.T


@pytest.mark.parametrize(("gamma", "rounds"), [(0.0, 20), (0.5, 7), (0.0, 0)])
def test_proxies_are_those_of_the_slow_way(gamma, rounds):
    rng = np.random.default_rng(0)
    text = unit(rng.standard_normal((4, 6)))
    x = unit(text[rng.integers(0, 4, 30)] + 0.3 * rng.standard_normal((30, 6)))
    nothing = (np.zeros((0, 6)), np.zeros(0, int))
    options = {"tau_t": 0.1, "tau_i": 0.4, "gamma": gamma, "balance": rounds, "iterations": 60, "lr": 1.0}
    model = adapt(method("in-map", **options), Task.from_arrays(nothing, text))
    want = 100 * reference(x, text, 0.1, 0.4, 0.6, gamma, rounds, 60, 1.0)
    off = np.abs(predict(model, x.astype(np.float32)).numpy() - want).max()
    assert off < 2e-2, f"logits are off by {off:.3g} of at most {np.abs(want).max():.3g}"


def test_temperatures_follow_the_backbones_scale():
    rng = np.random.default_rng(1)
    text, x = unit(rng.standard_normal((3, 5))), unit(rng.standard_normal((12, 5)))
    nothing = (np.zeros((0, 5)), np.zeros(0, int))
    models = [
        adapt(method("in-map", iterations=20, **taus), Task.from_arrays(nothing, text, logit_scale=scale))
        for scale, taus in ((100.0, {"tau_t": 0.05, "tau_i": 0.2}), (20.0, {}))
    ]
    a, b = (predict(m, x.astype(np.float32)).numpy() / m.backbone.logit_scale for m in models)
    assert np.abs(a - b).max() < 1e-4, "a scale of 20 must be as temperatures five times as high at 100"
