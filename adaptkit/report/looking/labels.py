"""Which labels are likely wrong, by confident learning.

Source: Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70 (2021),
arXiv:1911.00068: the confident joint with its thresholds, and what lies off its diagonal, ordered by margin.
Deviations: an image that is counted elsewhere though its own label is the likeliest of all is not told.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adaptkit.methods.logistic import SoftmaxRegression

FOLDS = 5
PENALTIES = (0.1, 1.0, 10.0, 100.0)  # weights of the data against the penalty's, tried from weak to strong


def out_of_fold(x: Tensor, labels: Tensor, classes: int, folds: Tensor) -> Tensor:
    """Probabilities of the classes for each image from a softmax regression that never saw its fold, ``(N, C)``.

    One penalty serves all folds: the one under which the given labels are likeliest.

    Args:
        x: embeddings, ``(N, D)``.
        labels: class ids as given, ``(N,)``.
        classes: their number, C.
        folds: the fold of each image, ``(N,)``, two of them or more.
    """
    x = x - x.mean(0)
    x = x / x.square().sum(1).mean().sqrt().clamp_min(1e-12)  # one scale for the features of any tower
    tried = x.new_zeros(len(PENALTIES), len(x), classes, dtype=torch.double)
    for fold in folds.unique():
        held = folds == fold
        regression = SoftmaxRegression(x[~held], labels[~held], classes)
        for k, c in enumerate(PENALTIES):
            weight, bias = regression.solve(c)
            tried[k, held] = (x[held].double() @ weight.to(x.device).T + bias.to(x.device)).softmax(1)
    likelihood = tried[:, torch.arange(len(x)), labels].clamp_min(1e-12).log().mean(1)
    return tried[int(likelihood.argmax())]


def folds_of(labels: Sequence[int], groups: Sequence[int]) -> Tensor:
    """A fold for each image, ``(N,)``: groups stay together, and those of each class are dealt out in turn.

    >>> folds_of([0, 0, 0, 1, 1], groups=[0, 1, 0, 3, 4]).tolist()
    [0, 1, 0, 0, 1]
    """
    dealt, of_group = dict[int, int](), dict[int, int]()
    for label, group in sorted(zip(labels, groups, strict=True)):
        if group not in of_group:
            of_group[group] = dealt.get(label, 0) % FOLDS
            dealt[label] = dealt.get(label, 0) + 1
    return torch.tensor([of_group[group] for group in groups], dtype=torch.long)


def doubtful(probabilities: Tensor, labels: Tensor) -> list[tuple[int, int, float]]:
    """Images off the diagonal of the confident joint: row, the class that it looks like, and the margin; largest first.

    Args:
        probabilities: out of fold, ``(N, C)``.
        labels: class ids as given, ``(N,)``.

    >>> import torch
    >>> p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.95, 0.05]])
    >>> [(row, likely) for row, likely, _ in doubtful(p, torch.tensor([0, 0, 1, 1]))]
    [(3, 0)]
    """
    classes = probabilities.shape[1]
    rows = torch.arange(len(labels))
    own = probabilities[rows, labels]
    counts = labels.bincount(minlength=classes).clamp_min(1)
    threshold = own.new_zeros(classes).index_add_(0, labels, own) / counts  # t_j: the mean confidence in a class
    threshold = threshold.masked_fill(labels.bincount(minlength=classes) == 0, torch.inf)  # nobody is counted there
    confident = probabilities.where(probabilities >= threshold, -torch.inf)
    best, likely = confident.max(1)
    margin = best - own
    found = [int(i) for i in (margin > 0).nonzero().flatten()]  # what still looks most like its label is no error
    return sorted(((i, int(likely[i]), float(margin[i])) for i in found), key=lambda one: (-one[2], one[0]))
