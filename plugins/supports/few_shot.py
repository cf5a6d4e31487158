"""Labelled images drawn at random, the same number of each class.

``sampler`` says whose draws these are, for seed 1 is another support in almost every code base: ``coop`` is Dassl's,
``val-first`` CLIP-LoRA's and TransCLIP's, ``tip`` Tip-Adapter's and APE's, ``gda`` GDA's, ``lp++`` LP++'s and ProLIP's,
``lp++-pool`` LP++'s on six datasets, ``probe`` CoOp's linear probe. `adaptkit.features.samplers`
tells what each draws when.

Source: Zhou et al., Learning to Prompt for Vision-Language Models, arXiv:2109.01134, and the code released with the
papers named.
Deviations: where a dataset has no validation images, code bases take the test images; here at most four of each class
are held back, drawn from the training images that the support leaves.
"""

import random

import torch

from adaptkit import hookimpl
from adaptkit.features.samplers import FEW, draw, sample


def few_shot(task, train, val, *, shots, seed, sampler: str = "coop"):
    labels = None if val is None else val.labels.tolist()
    rows, val_rows = sample(sampler, train.labels.tolist(), labels, shots, seed)
    if val_rows is None and not (val_rows := held_back(train.labels.tolist(), rows, shots, seed)):
        return train[torch.tensor(rows, dtype=torch.long)], None
    support, few = (torch.tensor(some, dtype=torch.long) for some in (rows, val_rows))
    return train[support], (train if val is None else val)[few]


def held_back(labels, support, shots, seed):
    """At most four rows a class that are not in the support."""
    taken = {*support}
    left = [row for row in range(len(labels)) if row not in taken]
    return [left[i] for i in draw([labels[row] for row in left], min(shots, FEW), random.Random(seed))]


@hookimpl
def supports():
    return {"few-shot": few_shot}
