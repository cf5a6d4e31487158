"""Frolic in double precision: the temperature by a root finder, the bias by an eigenvector."""

import numpy as np
import pytest
from scipy.optimize import brentq

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def stationary(means):
    prior = np.full(len(means), 1 / len(means))
    for _ in range(100):
        before, prior = prior, means.T @ prior
        if np.abs(prior - before).sum() < 1e-3:
            break
    return prior / prior.sum()


def reference(x, prompts, shrink, rounds, scale):
    text = unit(np.stack([unit(rows).mean(0) for rows in prompts]))
    logits, classes = scale * x @ text.T, len(text)
    rows = np.concatenate([x, *map(unit, prompts)])
    inverse = np.linalg.inv((1 - shrink) * np.diag(np.diag(np.cov(rows.T))) + shrink * np.eye(x.shape[1]))
    gaussian = np.stack([x @ inverse @ z - 0.5 * z @ inverse @ z for z in text], 1)
    aim = softmax(logits).max(1).mean()
    fused = logits + gaussian / np.exp(brentq(lambda t: softmax(gaussian / np.exp(t)).max(1).mean() - aim, -14, 14))
    p, prior = softmax(fused), np.full(classes, 1 / classes)
    for _ in range(rounds):
        corrected = fused - np.log(prior)
        top = np.sort(corrected, 1)
        sure, labels = top[:, -1] - top[:, -2] > 1 / classes, corrected.argmax(1)
        chosen = [p[sure & (labels == c)] for c in range(classes)]
        before, prior = prior, stationary(np.stack([(rows if len(rows) else p).mean(0) for rows in chosen]))
        if np.abs(prior - before).sum() < 1e-3:
            break
    return fused - np.log(prior), prior


@pytest.mark.parametrize(("shrink", "rounds", "per_class"), [(0.9, 10, 3), (0.5, 2, 1)])
def test_logits_are_those_of_the_formulas(shrink, rounds, per_class):
    rng = np.random.default_rng(0)
    names = unit(rng.standard_normal((6, 12)))
    prompts = [unit(name + 0.2 * rng.standard_normal((per_class, 12))) for name in names]
    frequent = rng.choice(6, 60, p=[0.4, 0.3, 0.1, 0.1, 0.1, 0.0])
    x = unit(names[frequent] + 0.3 * rng.standard_normal((60, 12)))
    task = Task.from_arrays((np.zeros((0, 12)), np.zeros(0, int)), prompts, logit_scale=15.0)
    got = predict(adapt(method("frolic", shrink=shrink, rounds=rounds), task), x).numpy()
    want, prior = reference(x, prompts, shrink, rounds, 15.0)
    assert prior.max() > 1.5 / 6, "the case must have a bias to correct"
    off = np.abs(got - want).max() / np.abs(want).max()
    assert off < 1e-4, f"logits are off by {off:.2g} of the largest"
