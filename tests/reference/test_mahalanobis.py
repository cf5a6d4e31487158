"""The shrunk Mahalanobis distance, sample by sample, with Ledoit and Wolf's formula written out."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def ledoit_wolf(rows):
    n, d = rows.shape
    s = sum(np.outer(r, r) for r in rows) / n
    target = np.trace(s) / d * np.eye(d)
    spread = sum(((np.outer(r, r) - s) ** 2).sum() for r in rows) / n**2
    return s + min(1.0, spread / ((s - target) ** 2).sum()) * (target - s)


@pytest.mark.parametrize("views", [1, 3])
def test_score_is_minus_half_the_squared_distance_to_the_nearest_mean(views):
    rng = np.random.default_rng(0)
    labels = np.array([1, 0, 2, 1, 2, 0, 1])
    x = unit(unit(rng.standard_normal((3, 9)))[labels][:, None] + 0.3 * rng.standard_normal((7, views, 9)))
    queries = unit(rng.standard_normal((8, 9)))
    rows, owner = x.reshape(-1, 9), labels.repeat(views)
    means = np.stack([rows[owner == c].mean(0) for c in range(3)])
    precision = np.linalg.inv(ledoit_wolf(rows - means[owner]))
    want = [max(-0.5 * (q - m) @ precision @ (q - m) for m in means) for q in queries]
    got = predict(adapt(method("mahalanobis"), Task.from_arrays((x, labels), unit(np.ones((3, 9))))), queries)
    off = np.abs(got.numpy() - want).max() / np.abs(want).max()
    assert off < 1e-4, f"scores are off by {off:.2g} of the largest"


def test_one_array_per_class_is_an_error():
    with pytest.raises(ValueError, match="two different images"):
        adapt(method("mahalanobis"), Task.from_arrays((np.eye(4), np.arange(4)), np.eye(4)))
