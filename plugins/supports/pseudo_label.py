"""Training images by the label that zero-shot gives them, the surest of each class: no label is read.

Source: Huang et al., Unsupervised Prompt Learning for Vision-Language Models, arXiv:2204.03649: the top K per class.
Deviations: none known. An image has one label, its likeliest, so a class that is no image's likeliest gets no image;
methods that need every class then say so. There are no labelled validation images to draw: ask for ``select: none``,
and methods keep their default hyperparameters.
"""

import torch

from adaptkit import Pooled, hookimpl


def pseudo_label(task, train, val, *, shots, seed, threshold: float = 0.0):
    """`threshold` is the probability that an image must exceed; `seed` draws nothing."""
    train = train.blind()
    logits = task.backbone.logits(train.bind({"x": Pooled()}).x, task.text)
    rows, labels, _ = surest(logits.softmax(-1), shots, threshold)
    return train[rows].label(labels), None


def surest(confidence, shots, threshold=-torch.inf):
    """At most `shots` rows per likeliest class, surest first, above a threshold.

    Args:
        confidence: ``(N, C)``, probabilities or any scores.
        shots: of each class.
        threshold: that the largest of a row must exceed.

    Returns:
        Row numbers, labels and confidences, ``(S,)`` each, in the order of classes.
    """
    best, labels = confidence.max(1)
    order = best.argsort(descending=True, stable=True)
    order = order[best[order] > threshold]
    order = order[labels[order].argsort(stable=True)]  # by class, surest first within it
    counts = labels[order].bincount(minlength=confidence.shape[1])
    rank = torch.arange(len(order)).to(order) - (counts.cumsum(0) - counts)[labels[order]]
    rows = order[rank < shots]
    return rows, labels[rows], best[rows]


@hookimpl
def supports():
    return {"pseudo-label": pseudo_label}
