"""TPS's shift with the gradient written out and AdamW by hand."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gradient(views, text, shift, keep, scale):
    """Of the entropy of the mean prediction by the shift, ``(C, D)``."""
    length = np.linalg.norm(text + shift, axis=1, keepdims=True)
    moved = (text + shift) / length
    p = softmax(scale * views @ moved.T)
    kept = np.argsort((-p * np.log(p)).sum(1))[: max(1, int(keep * len(views)))]
    p, x = p[kept], views[kept]
    by_mean = -np.log(p.mean(0)) - 1
    by_logit = p * (by_mean - (p * by_mean).sum(1, keepdims=True)) / len(kept)
    by_moved = scale * by_logit.T @ x
    return (by_moved - (by_moved * moved).sum(1, keepdims=True) * moved) / length


def reference(views, text, steps, keep, lr, scale, decay=0.01):
    shift, m, v = np.zeros_like(text), np.zeros_like(text), np.zeros_like(text)
    for t in range(1, steps + 1):
        g = gradient(views, text, shift, keep, scale)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        shift = shift * (1 - lr * decay) - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return scale * unit(text + shift) @ views[0]


@pytest.mark.parametrize(("steps", "keep", "lr"), [(1, 0.25, 5e-3), (3, 0.4, 2e-3)])
def test_logits_are_those_of_the_shifted_embeddings(steps, keep, lr):
    rng = np.random.default_rng(0)
    text = unit(rng.standard_normal((5, 10)))
    views = unit(text[rng.integers(0, 5, 12), None] + 0.7 * rng.standard_normal((12, 8, 10)))
    task = Task.from_arrays((np.zeros((0, 10)), np.zeros(0, int)), text, logit_scale=20.0)
    got = predict(adapt(method("tps", steps=steps, keep=keep, lr=lr), task), views).numpy()
    want = np.stack([reference(v, text, steps, keep, lr, 20.0) for v in views])
    plain = 20.0 * views[:, 0] @ text.T
    off, moved = np.abs(got - want).max(), np.abs(want - plain).max()
    assert off < 2e-3 * moved, f"logits are off by {off:.2g}, where the shift moves them by {moved:.2g}"
