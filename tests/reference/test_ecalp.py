"""ECALP as it reads by default, each query once: the graph built anew for every image, with dense matrices."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def strongest(similarities, k):
    """Similarities with all but the k largest of them at zero."""
    out = np.zeros_like(similarities)
    best = np.argsort(-similarities)[:k]
    out[best] = similarities[best]
    return out


def reference(x, text, shots, labels, k_text, k_image, k_shot, gamma, alpha, iterations):
    classes, given = len(text), len(text) + len(shots)
    known = np.concatenate([np.eye(classes), np.eye(classes)[labels]])
    context = text.var(0, ddof=1)
    shot_context = 1 / shots.var(0, ddof=1) if len(shots) else None
    held, answers = np.zeros((0, classes)), []
    for n in range(1, len(x) + 1):
        w = np.zeros((given + n, given + n))
        for i in range(n):
            w[given + i, :classes] = strongest(text @ x[i], k_text)
            if len(shots):
                w[given + i, classes:given] = strongest(shots @ unit(x[i] * shot_context), k_shot)
            older_side = [unit(x[min(i, j)] * context) @ x[max(i, j)] for j in range(n)]
            w[given + i, given:] = strongest(np.array(older_side), k_image)
        w = w.clip(0) ** gamma
        w = w + w.T
        root = 1 / (np.sqrt(w.sum(1)) + 1e-6)
        w = root[:, None] * w * root
        start = np.concatenate([held, np.zeros((1, classes))])
        y = start
        for _ in range(iterations):
            y = alpha * (w[given:] @ np.concatenate([known, y])) + (1 - alpha) * start
        answers.append(y[-1])
        held = np.where(y == y.max(1, keepdims=True), y / 5, 0)
    return np.stack(answers)


@pytest.mark.parametrize(("count", "alpha"), [(0, 1.0), (10, 0.7)])
def test_scores_are_those_of_a_graph_built_anew(count, alpha):
    rng = np.random.default_rng(0)
    text = unit(rng.standard_normal((5, 12)) + 1)
    labels = np.arange(count) % 5
    classes = rng.integers(0, 5, 25)
    x, shots = (unit(text[ids] + 0.2 * rng.standard_normal((len(ids), 12))) for ids in (classes, labels))
    options = {"k_text": 2, "k_image": 4, "k_shot": 3, "gamma": 3.0, "alpha": alpha, "iterations": 3}
    got = predict(adapt(method("ecalp", **options), Task.from_arrays((shots, labels), text)), x).numpy()
    want = reference(x, text, shots, labels, **options)
    off = np.abs(got - want).max() / np.abs(want).max()
    assert off < 1e-4, f"scores are off by {off:.2g} of the largest"
