"""Parts of labelled images: each class in every part alike, and images that show the same in one part."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

ALWAYS = -1  # the fold of what is always learned from


def dealt(labels: Tensor, groups: Tensor, count: int, seed: int) -> Tensor:
    """A fold for each image, ``(N,)``, from 0 to `count` - 1, or `ALWAYS`.

    Folds have as many images of each class as can be, and nearly as many in all. A class of which a fold would leave
    nothing to learn from is always learned from.

    Args:
        labels: ``(N,)`` class ids.
        groups: ``(N,)``, the same number for images that show the same.
        count: of folds.
        seed: which of the many such deals.
    """
    draw, start = torch.Generator().manual_seed(seed), 0
    folds = torch.full_like(labels, ALWAYS)
    for own in groups_of_classes(labels, groups).values():
        if len(own) < 2:
            continue
        for place, k in enumerate(torch.randperm(len(own), generator=draw).tolist()):
            folds[own[k]] = (start + place) % count
        start = (start + len(own)) % count
    return without_empty(labels, folds, count)


def groups_of_classes(labels: Tensor, groups: Tensor) -> dict[int, list[list[int]]]:
    """The rows of each group, by the class of its first image."""
    rows, of = defaultdict[int, list[int]](list), dict[int, int]()
    for row, (label, group) in enumerate(zip(labels.tolist(), groups.tolist(), strict=True)):
        rows[group].append(row)
        of.setdefault(group, label)
    found = defaultdict[int, list[list[int]]](list)
    for group, members in rows.items():
        found[of[group]].append(members)
    return dict(sorted(found.items()))


def without_empty(labels: Tensor, folds: Tensor, count: int) -> Tensor:
    """The folds, with those classes always learned from of which some fold holds every image."""
    folds = folds.clone()
    for c in labels.unique().tolist():
        own = folds[labels == c].unique()
        if len(own) < 2:
            folds[labels == c] = ALWAYS
    return folds


def number_of_folds(labels: Tensor, groups: Tensor, most: int = 5) -> int:
    """Folds that most classes can fill, from 2 to `most`; 0 where no class has two different images."""
    sizes = torch.tensor([len(own) for own in groups_of_classes(labels, groups).values() if len(own) > 1])
    return 0 if not len(sizes) else int(sizes.double().quantile(0.25).floor().clamp(2, most))


def validation_rows(labels: Tensor, groups: Tensor, seed: int, most: int = 4) -> Tensor:
    """Images to choose hyperparameters by: a fourth of each class, of two images one, and at most `most`; booleans."""
    draw, held = torch.Generator().manual_seed(seed), torch.zeros(len(labels), dtype=torch.bool)
    for own in groups_of_classes(labels, groups).values():
        count = min(most, max(len(own) // 4, int(len(own) > 1)))
        for k in torch.randperm(len(own), generator=draw).tolist()[:count]:
            held[own[k]] = True
    for c in labels.unique().tolist():  # of every class something is left to learn from
        if held[labels == c].all():
            held[labels == c] = False
    return held
