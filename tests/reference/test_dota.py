"""DOTA's running sums as weighted averages over all images so far, each about the mean of its moment."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def reference(stream, text, sigma, eps, rho, eta, keep, scale):
    classes, dim = text.shape
    mean_sum, count, answers = text.copy(), np.ones(classes), []
    scatter = [sigma * np.eye(dim) for _ in text]
    for views in stream:
        p = softmax(scale * views @ text.T)
        kept = np.argsort(-(p * np.log(p + 1e-300)).sum(1), kind="stable")[: max(1, int(keep * len(views)))]
        x, p = views[kept], p[kept]
        means = mean_sum / count[:, None]
        shared = np.mean([s / n for s, n in zip(scatter, count, strict=True)], axis=0)
        precision = np.linalg.inv((1 - eps) * shared + eps * np.eye(dim))
        q = x.mean(0)
        gaussian = np.array([q @ precision @ m - 0.5 * m @ precision @ m for m in means])
        weight = min(rho * count.mean() / len(kept), eta)
        answers.append((scale * x @ text.T).mean(0) + weight * scale / 100 * gaussian)
        for c in range(classes):
            for row, share in zip(x, p[:, c], strict=True):
                scatter[c] = scatter[c] + share * np.outer(row - means[c], row - means[c])
                mean_sum[c] = mean_sum[c] + share * row
                count[c] += share
    return np.stack(answers)


@pytest.mark.parametrize(("views", "keep"), [(1, 0.1), (6, 0.5)])
def test_answers_are_those_of_weighted_averages(views, keep):
    rng = np.random.default_rng(0)
    text = unit(rng.standard_normal((5, 8)))
    stream = unit(text[rng.integers(0, 5, 50), None] + 0.4 * rng.standard_normal((50, views, 8)))
    task = Task.from_arrays((np.zeros((0, 8)), np.zeros(0, int)), text, logit_scale=20.0)
    options = {"sigma": 0.05, "eps": 0.01, "rho": 0.1, "eta": 0.6, "keep": keep}
    got = predict(adapt(method("dota", views=views, **options), task), stream).numpy()
    want = reference(stream, text, scale=20.0, **options)
    off = np.abs(got - want).max() / np.abs(want).max()
    assert off < 1e-4, f"logits are off by {off:.2g} of the largest"
