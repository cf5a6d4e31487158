"""Labelled images drawn at random, fewer and fewer of each class: `shots` of the first, ``shots / ratio`` of the last.

Class c of C keeps ``shots * ratio ** (-c / (C - 1))`` images, rounded down, at least one; classes in the order of their
labels. What is kept is a part of what ``few-shot`` draws with the same shots and seed (sampler ``coop``, if every class
has that many images): a higher ratio takes images away and exchanges none. Validation images stay balanced, at most
four a class.

Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, arXiv:1901.05555 (its exponential
profile).
Deviations: the profile is cut out of few-shot supports, not out of the whole training set. A class with fewer images
than its share gives all it has.
"""

import random
from typing import Annotated

import torch

from adaptkit import hookimpl
from adaptkit.features.samplers import FEW, by_class, draw
from adaptkit.io.ranges import Range


def long_tailed(task, train, val, *, shots, seed, ratio: Annotated[float, Range(1, 1_000_000)] = 100.0):
    """`ratio` is that of the largest class to the smallest, 1 or more."""
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 1 <= ratio < float("inf"):
        raise ValueError(f"ratio must be a number from 1; got {ratio!r}")
    rng, keep = random.Random(seed), profile(len(task.classnames), shots, ratio)
    rows = []
    for label, own in by_class(train.labels.tolist()).items():
        rows += rng.sample(own, min(shots, len(own)))[: keep[label]]
    few = None if val is None else val[torch.tensor(draw(val.labels.tolist(), min(shots, FEW), rng), dtype=torch.long)]
    return train[torch.tensor(rows, dtype=torch.long)], few


def profile(classes, shots, ratio):
    """Images to keep of each class, in the order of labels."""
    return [max(1, int(shots * ratio ** (-c / max(1, classes - 1)) + 1e-9)) for c in range(classes)]


@hookimpl
def supports():
    return {"long-tailed": long_tailed}
