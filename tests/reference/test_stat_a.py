"""StatA with loops over queries and classes, in double precision."""

import numpy as np
import pytest
import torch

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def assign(x, y_hat, z, mu, var, neighbours, sweeps):
    n, w = len(x), np.zeros((len(x), len(x)))
    for i in range(n):
        for j in sorted((j for j in range(n) if j != i), key=lambda j: -x[i] @ x[j])[:neighbours]:
            w[i, j] = x[i] @ x[j]
    likelihood = np.array([[-0.5 * ((row - m) ** 2 / v).sum() for m, v in zip(mu, var, strict=True)] for row in x])
    for _ in range(sweeps):
        z = softmax(np.log(y_hat) + (likelihood + 50 / (2 * neighbours) * (w.T @ z + w @ z)) / 50)
    return z


def reference(x, text, alpha, soft, neighbours, iterations, sweeps, scale):
    z = y_hat = softmax(scale * x @ text.T)
    first = sum(z[i, c] * (x[i] - text[c]) ** 2 for i in range(len(x)) for c in range(len(text))) / len(x)
    mu, var = text, np.stack([first] * len(text))
    for _ in range(iterations):
        z = assign(x, y_hat, z, mu, var, neighbours, sweeps)
        means, variances = [], []
        for c, t in enumerate(text):
            count = z[:, c].sum() if soft else (z.argmax(1) == c).sum()
            beta, weight = count / (alpha + count), z[:, c] / z[:, c].sum()
            m = unit(beta * unit(weight @ x) + (1 - beta) * t)
            means.append(m)
            variances.append(beta * weight @ (x - m) ** 2 + (1 - beta) * (first + (t - m) ** 2))
        mu, var = np.stack(means), np.stack(variances)
    return assign(x, y_hat, z, mu, var, neighbours, sweeps)


@pytest.mark.parametrize(("alpha", "soft", "neighbours"), [(1.0, False, 3), (5.0, True, 2)])
def test_assignments_are_those_of_the_loops(alpha, soft, neighbours):
    rng = np.random.default_rng(0)
    text = unit(rng.standard_normal((6, 10)))
    x = unit(text[rng.integers(0, 4, 30)] + 0.4 * rng.standard_normal((30, 10)))  # two of the classes never come
    task = Task.from_arrays((np.zeros((0, 10)), np.zeros(0, int)), text, logit_scale=10.0)
    options = {"alpha": alpha, "soft": soft, "neighbours": neighbours, "iterations": 4, "sweeps": 3}
    got = predict(adapt(method("stat-a", **options), task), x).exp().numpy()
    off = np.abs(got - reference(x, text, scale=10.0, **options)).max()
    assert off < 1e-4, f"assignments are off by {off:.2g}"


def test_a_class_without_queries_keeps_its_text():
    rng = np.random.default_rng(0)
    text = np.eye(8)[:3]
    x = unit(text[rng.integers(0, 2, 30)] + 0.1 * rng.standard_normal((30, 8)))
    fitted = adapt(method("stat-a"), Task.from_arrays((np.zeros((0, 8)), np.zeros(0, int)), text))
    x = torch.from_numpy(x).float()
    _, mu, _ = fitted.solve(x, fitted.zero_shot(x).log_softmax(-1))
    assert torch.allclose(mu[2], fitted.text[2]), "the mean of a class that no query has must be its text"
