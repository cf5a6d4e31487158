"""Labelled images drawn at random, the same number of each class.

Source: Zhou et al., Learning to Prompt for Vision-Language Models, arXiv:2109.01134, and the sampler of its code base:
Python's generator, seeded once; classes in the order they first appear; training images first, then at most four
validation images a class from the same stream.
Deviations: none known. A class with fewer images than shots gives all it has.
"""

import random

import torch

from adaptkit import hookimpl


def few_shot(task, train, val, *, shots, seed):
    rng = random.Random(seed)
    support = train[draw(train.labels.tolist(), shots, rng)]
    return support, None if val is None else val[draw(val.labels.tolist(), min(shots, 4), rng)]


def draw(labels, shots, rng):
    """Row numbers of `shots` images of each class, in the order drawn."""
    rows = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    picked = [rng.sample(of, shots) if len(of) >= shots else of for of in rows.values()]
    return torch.tensor([row for of in picked for row in of], dtype=torch.long)


@hookimpl
def supports():
    return {"few-shot": few_shot}
