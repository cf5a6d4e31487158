"""The Mahalanobis score once more, in numpy loops, from the papers (arXiv:1807.03888; Ledoit and Wolf, 2004)."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, unit


def ledoit_wolf(rows):
    """Covariance of centred rows, drawn towards a multiple of the identity by the optimal amount."""
    n, d = rows.shape
    s = rows.T @ rows / n
    m = np.trace(s) / d
    gap = ((s - m * np.eye(d)) ** 2).sum() / d
    noise = sum(((np.outer(r, r) - s) ** 2).sum() / d for r in rows) / n**2
    share = min(noise, gap) / gap
    return share * m * np.eye(d) + (1 - share) * s


def score(x, y, queries, as_released):
    rows = [np.concatenate(list(x[y == c])) for c in range(y.max() + 1)]
    means = [r.mean(0) for r in rows]
    if as_released:
        means = [unit(m) for m in means]
        precision = np.linalg.inv(np.cov(np.concatenate(rows).T))
    else:
        precision = np.linalg.inv(ledoit_wolf(np.concatenate([r - m for r, m in zip(rows, means, strict=True)])))
    return np.array([max(-0.5 * (q - m) @ precision @ (q - m) for m in means) for q in queries])


@pytest.mark.parametrize("as_released", [False, True])
def test_the_score_is_the_papers(as_released):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat(np.arange(3), (4, 2, 6)))
    text = unit(rng.standard_normal((3, 6)))
    x = unit(text[y][:, None] + 0.5 * rng.standard_normal((12, 3, 6)) * np.arange(1, 7) / 3)
    queries = unit(rng.standard_normal((10, 6)))
    got = predict(adapt(method("mahalanobis", as_released=as_released), Task.from_arrays((x, y), text)), queries)
    close(got, score(x, y, queries, as_released), "the score", 1e-3)


def test_one_array_per_class_is_an_error():
    with pytest.raises(ValueError, match="two different images"):
        adapt(method("mahalanobis"), Task.from_arrays((np.eye(4), np.arange(4)), np.eye(4)))
