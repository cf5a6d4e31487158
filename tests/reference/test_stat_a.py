"""StatA once more, in numpy loops, from the paper (arXiv:2501.03729)."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, softmax, texts_and_images, unit


def stat_a(text, x, scale, alpha=1.0, soft=False, lam=1.0, pull=1.0, tau=50.0, neighbours=3, iterations=10, sweeps=5):
    """Assignments z of a Gaussian mixture with diagonal covariances, anchored to the text."""
    n, classes = len(x), len(text)
    y_hat = softmax(scale * x @ text.T)
    z, mu = y_hat.copy(), text.copy()
    start = sum(z[i, k] * (x[i] - text[k]) ** 2 for i in range(n) for k in range(classes)) / n
    var = np.array([start] * classes)
    w = np.zeros((n, n))
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: -x[i] @ x[j])
        for j in others[:neighbours]:
            w[i, j] = x[i] @ x[j]
    for iteration in range(iterations + 1):
        log_p = np.array(
            [[-0.5 * ((xi - mu[k]) ** 2 / var[k] + np.log(var[k])).sum() for k in range(classes)] for xi in x]
        )
        for _ in range(sweeps):
            joint = lam * np.log(y_hat) + log_p / tau + pull / (2 * neighbours) * (w @ z + w.T @ z)
            z = softmax(joint)
        if iteration == iterations:
            break
        count = z.sum(0) if soft else np.bincount(z.argmax(1), minlength=classes)
        beta = count / (alpha + count)
        for k in range(classes):
            mean = unit(z[:, k] @ x / z[:, k].sum())
            mu[k] = unit(beta[k] * mean + (1 - beta[k]) * text[k])
            spread = z[:, k] @ (x - mu[k]) ** 2 / z[:, k].sum()
            var[k] = beta[k] * spread + (1 - beta[k]) * (start + (text[k] - mu[k]) ** 2)
    return z


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"soft": True, "alpha": 3.0},
        {"lam": 0.7, "pull": 0.5, "tau": 20.0, "neighbours": 2, "iterations": 4, "sweeps": 2},
    ],
)
def test_stat_a_is_the_papers(options):
    text, x, y = texts_and_images(classes=5, n=40)
    x = x[y != 3]  # a class without queries
    task = Task.from_arrays((x[:0], []), text, logit_scale=10.0)
    got = predict(adapt(method("stat-a", **options), task), x)
    want = stat_a(text, x, 10.0, **options)
    close(got.softmax(-1), want, "stat-a's probabilities")
