"""BoostAdapter as it reads by default, both caches by entropy, with lists in place of tensors."""

import math

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def entropy(p):
    return -(p * np.log(p + 1e-300)).sum(-1)


def reference(stream, text, average, delta, keep, scale, alpha=1.0, beta=8.0, window=(0.2, 0.5), mask=(0.03, 1.0)):
    positive, negative, answers = [[] for _ in text], [[] for _ in text], []
    for views in stream:
        p_views = softmax(scale * views @ text.T)
        kept = np.argsort(entropy(p_views), kind="stable")[: max(1, int(keep * len(views)))]
        chosen = kept if average else [0]
        x, p = views[chosen].mean(0), p_views[chosen].mean(0)
        logits = scale * text @ x
        label, h = int(logits.argmax()), entropy(p)
        positive[label] = sorted([*positive[label], (h, tuple(x))])[:3]
        if window[0] < h / math.log2(len(text)) < window[1]:
            marks = (mask[0] < p) & (p < mask[1])
            negative[label] = sorted([*negative[label], (h, tuple(x), tuple(marks))])[:2]
        boosted = [list(rows) for rows in positive]
        for view in kept:
            c = int(p_views[view].argmax())
            boosted[c] = sorted([*boosted[c], (entropy(p_views[view]), tuple(views[view]))])[: 3 + delta]
        for c, rows in enumerate(boosted):
            logits[c] += scale / 100 * alpha * sum(np.exp(-beta * (1 - x @ np.array(key))) for _, key in rows)
        for _, key, marks in (row for rows in negative for row in rows):
            logits = logits - scale / 100 * 0.117 * np.exp(-(1 - x @ np.array(key))) * np.array(marks)
        answers.append(logits)
    return np.stack(answers)


@pytest.mark.parametrize(("average", "delta"), [(False, 0), (True, 2)])
def test_answers_are_those_of_lists(average, delta):
    rng = np.random.default_rng(0)
    text = unit(rng.standard_normal((5, 10)))
    stream = unit(text[rng.integers(0, 5, 40), None] + 0.5 * rng.standard_normal((40, 12, 10))).astype(np.float32)
    task = Task.from_arrays((np.zeros((0, 10)), np.zeros(0, int)), text, logit_scale=10.0)
    options = {"average": average, "delta": delta, "keep": 0.3}
    got = predict(adapt(method("boost-adapter", **options), task), stream).numpy()
    want = reference(unit(stream.astype(np.float64)), text, scale=10.0, **options)
    off = np.abs(got - want).max() / np.abs(want).max()
    assert off < 1e-4, f"logits are off by {off:.2g} of the largest"
