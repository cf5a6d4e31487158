"""Labelled images drawn at random, the same number of each class.

``sampler`` says whose draws these are, for seed 1 is another support in almost every code base: ``coop`` is Dassl's,
``val-first`` CLIP-LoRA's and TransCLIP's, ``tip`` Tip-Adapter's and APE's, ``gda`` GDA's, ``lp++`` LP++'s and ProLIP's,
``lp++-pool`` LP++'s on six datasets, ``probe`` CoOp's linear probe. `adaptkit.samplers` tells what each draws when.

Source: Zhou et al., Learning to Prompt for Vision-Language Models, arXiv:2109.01134, and the code released with the
papers named.
Deviations: none known. Where a code base takes the test images for validation, there are none here.
"""

import torch

from adaptkit import hookimpl
from adaptkit.samplers import sample


def few_shot(task, train, val, *, shots, seed, sampler: str = "coop"):
    labels = None if val is None else val.labels.tolist()
    rows, val_rows = sample(sampler, train.labels.tolist(), labels, shots, seed)
    support = train[torch.tensor(rows, dtype=torch.long)]
    if val_rows is None:
        return support, None
    return support, (train if val is None else val)[torch.tensor(val_rows, dtype=torch.long)]


@hookimpl
def supports():
    return {"few-shot": few_shot}
