"""TransCLIP with shots, image by image, in the rows' right order, which no golden has."""

import numpy as np
import pytest
import torch

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def nearest(row, bank, k):
    return np.argsort(-(bank @ row), kind="stable")[:k]


def reference(x, text, shots, labels, gamma, lam=0.5, scale=100.0, tau=50.0, k=3):
    n, c, s = len(x), len(text), len(shots)
    y_hat = softmax(scale * x @ text.T)
    z = y_hat.copy()
    mu = unit(np.stack([shots[labels == j].sum(0) for j in range(c)]))
    var = np.full(x.shape[1], 1 / x.shape[1])
    edges = []  # (from, to, weight): an image pulls and is pulled along each
    for i in range(n):
        edges += [(i, j, x[i] @ x[j]) for j in nearest(x[i], x, k + 1) if j != i]
    given = [(i, j, shots[i] @ x[j]) for i in range(s) for j in nearest(shots[i], x, k)]

    def assign(z):
        for _ in range(5):
            new = np.zeros_like(z)
            for i in range(n):
                pull = sum(w * z[b] for a, b, w in edges if a == i) + sum(w * z[a] for a, b, w in edges if b == i)
                pull = pull + sum(w * np.eye(c)[labels[a]] for a, b, w in given if b == i)
                gauss = np.array([-0.5 * ((x[i] - mu[j]) ** 2 / var).sum() for j in range(c)])
                new[i] = y_hat[i] ** lam * np.exp((gauss - gauss.max()) / tau + pull / (2 * k))
                new[i] /= new[i].sum()
            z = new
        return z

    for _ in range(10):
        z = assign(z)
        weights = [(x[i], z[i] / n) for i in range(n)]
        weights += [(shots[i], gamma * tau / s * np.eye(c)[labels[i]]) for i in range(s)]
        mu = unit(sum(np.outer(w, row) for row, w in weights))
        total = sum(w.sum() for _, w in weights)
        var = sum(w[j] * (row - mu[j]) ** 2 for row, w in weights for j in range(c)) / total
    return assign(z)


@pytest.mark.parametrize("gamma", [0.002, 0.2])
def test_shots_pull_the_queries_they_are_near(gamma):
    rng = np.random.default_rng(0)
    text, labels = unit(rng.standard_normal((3, 6))), np.array([0, 2, 1, 1, 0, 2, 2])
    shots = unit(text[labels] + 0.3 * rng.standard_normal((len(labels), 6)))
    x = unit(text[rng.integers(0, 3, 15)] + 0.5 * rng.standard_normal((15, 6)))
    fitted = adapt(method("trans-clip-fs", gamma=gamma), Task.from_arrays((shots, labels), text, logit_scale=20.0))
    off = np.abs(predict(fitted, x).exp().numpy() - reference(x, text, shots, labels, gamma, scale=20.0)).max()
    assert off < 1e-4, f"assignments are off by {off:.2g}"


def test_a_class_without_shots_is_an_error():
    task = Task.from_arrays((torch.eye(3)[:2], [0, 2]), torch.eye(3))
    with pytest.raises(ValueError, match="got none of class 1"):
        adapt(method("trans-clip-fs"), task)


def test_one_query_and_few_queries_have_finite_answers():
    rng = np.random.default_rng(1)
    task = Task.from_arrays((np.zeros((0, 6)), np.zeros(0, int)), unit(rng.standard_normal((4, 6))))
    for n in (1, 2, 5):
        answers = predict(adapt(method("trans-clip"), task), unit(rng.standard_normal((n, 6))))
        assert answers.isfinite().all(), f"{n} queries must have finite log-probabilities"


def test_the_released_update_feeds_its_logarithms_back_as_they_are():
    rng = np.random.default_rng(1)
    text = unit(rng.standard_normal((20, 64)))
    x = unit(np.tile(text, (5, 1)) + 0.25 * rng.standard_normal((100, 64)))
    task = Task.from_arrays((text, np.arange(20)), text, logit_scale=100.0)
    least = float(predict(adapt(method("trans-clip", as_released=True), task), x).min())
    assert least < -100, f"nothing may be cut off at -60 between sweeps, or the least is near that; got {least}"
