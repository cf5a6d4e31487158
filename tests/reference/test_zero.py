"""ZERO's votes one image at a time, with every way a tie can end; the goldens reach only one of them."""

from collections import Counter

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def entropy(logits):
    p = np.exp(logits - logits.max())
    p /= p.sum()
    return -(p * np.log(p)).sum()


def reference(views, text, gamma, scale, mirrored):
    logits = sorted((scale * view @ text.T for view in views), key=entropy)
    kept = max(1, int(gamma * len(views)))
    votes = np.bincount([v.argmax() for v in logits[:kept]], minlength=len(text)).astype(float)
    tied = np.flatnonzero(votes == votes.max())
    if len(tied) == 1:
        return votes, "no tie"
    for view in logits[kept:]:
        if view.argmax() in tied:
            votes[view.argmax()] += 1
            return votes, "named"
    last = logits[kept].copy() if kept < len(logits) else logits[0].copy()
    barred = len(text) - 1 - tied if mirrored else np.setdiff1d(np.arange(len(text)), tied)
    last[barred] = -np.inf
    votes[last.argmax()] += 1
    return votes, "chosen"


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("gamma", [0.1, 0.7, 1.0])
def test_votes_and_ties_are_those_of_one_image_at_a_time(gamma, mirrored):
    rng = np.random.default_rng(0)
    text, ways = unit(rng.standard_normal((7, 5))), Counter()
    views = unit(rng.standard_normal((300, 6, 5))).astype(np.float32)
    zero = method("zero", gamma=gamma, as_released=mirrored)
    task = Task.from_arrays((np.zeros((0, 5)), np.zeros(0, int)), text, logit_scale=30.0)
    got = predict(adapt(zero, task), views).numpy()
    for i, image in enumerate(views):
        want, way = reference(image, text, gamma, 30.0, mirrored)
        ways[way] += 1
        assert (got[i] == want).all(), f"votes of image {i} ({way}) must be {want}; got {got[i]}"
    seen = {0.1: {"no tie"}, 0.7: {"no tie", "named", "chosen"}, 1.0: {"no tie", "chosen"}}[gamma]
    assert set(ways) == seen, f"the images must end in {seen}; got {ways}"
