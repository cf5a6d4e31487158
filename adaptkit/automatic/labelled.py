"""The labelled images that may be learned from, and their features as far as there is time for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaptkit.automatic.budget import Budget
from adaptkit.automatic.portfolio import VIEWS
from adaptkit.features.cache import CachedRows, FeatureCache
from adaptkit.features.datasets import Joined, Splits, some_of
from adaptkit.features.items import Images, Source
from adaptkit.features.needs import Need, Pooled
from adaptkit.runs.loading import pick_dataset
from adaptkit.runs.workspace import Workspace

MOST_LABELLED = 20_000  # labelled images that are looked at
SHARE, SHARE_VIEWS = 0.5, 0.4  # of the time: what plain features may take, and of what is left then, views
FIRST_BLOCK = 64  # images that are extracted before it is known how long one takes


@dataclass(frozen=True)
class Labelled:
    """Images with labels that may be read.

    Attributes:
        source: of the images.
        labels: ``(N,)`` class ids.
        groups: ``(N,)``, the same number for images that show the same.
        names: where each lies.
        alone: test images, whose labels are left alone.
        left_out: images that are not learned from, in lines.
    """

    source: Source
    labels: Tensor
    groups: Tensor
    names: Sequence[str]
    alone: int
    left_out: tuple[str, ...] = ()

    def some(self, rows: Sequence[int]) -> Labelled:
        """Some of them."""
        index = torch.as_tensor(rows, dtype=torch.long)
        names = [self.names[i] for i in rows]
        parts = (some_of(self.source, list(rows)), self.labels[index], self.groups[index], names)
        return Labelled(*parts, self.alone, self.left_out)

    def together(self, groups: Sequence[int]) -> Labelled:
        """The same, with those of a group together, too."""
        return replace(self, groups=torch.tensor(joined_groups(self.groups.tolist(), groups)))

    def images(self, workspace: Workspace) -> Images:
        """As methods see them."""
        rows = CachedRows(workspace.cache, self.source)
        return Images(rows, torch.arange(len(self.labels)), self.labels, device=workspace.device)


def open_whole(dataset: str | Splits, home: Path | None) -> Splits:
    """A dataset with nothing parted off where its author parted nothing.

    Raises:
        ValueError: when it is of another kind than one class an image, or has one class only.
    """
    splits = dataset if isinstance(dataset, Splits) else pick_dataset(dataset, home, whole=True)
    if splits.kind != "classification":
        raise ValueError(f"auto must be given images of one class each; got {splits.name}, which asks {splits.kind}")
    if (count := len(splits.classnames)) < 2:
        raise ValueError(f"{splits.name} must have at least 2 classes to tell apart; got {count}")
    return splits


def labelled_of(splits: Splits) -> Labelled:
    """All images that may be learned from; those of which copies have other labels are left out.

    Args:
        splits: the dataset; its test images are not looked at.

    Raises:
        ValueError: when a class has no image left.
    """
    parts = [part for part in (splits.train, splits.val) if part is not None and len(part)]
    source: Source = parts[0] if len(parts) == 1 else Joined(parts)
    labels = torch.as_tensor(np.asarray(source.labels)).long()
    names = [str(getattr(source, "where", int)(i)) for i in range(len(source))]
    keys = [source.key(i) for i in range(len(source))]
    copies = defaultdict[str, list[int]](list)
    for row, key in enumerate(keys):
        copies[key].append(row)
    odd = [rows for rows in copies.values() if len({int(labels[row]) for row in rows}) > 1]
    lines = tuple(f"the same picture has two labels: {', '.join(repr(names[row]) for row in rows)}" for rows in odd)
    groups = torch.tensor([copies[key][0] for key in keys], dtype=torch.long)
    whole = Labelled(source, labels, groups, names, len(splits.test), lines)
    gone = {row for rows in odd for row in rows}
    kept = whole.some([row for row in range(len(keys)) if row not in gone]) if gone else whole
    if empty := sorted({*range(len(splits.classnames))} - {*kept.labels.tolist()}):
        name, why = splits.labelnames[empty[0]], "; ".join(lines[:1])
        raise ValueError(f"every class must have an image of its own to learn from; got none for {name!r}; {why}")
    return kept


def joined_groups(one: Sequence[int], two: Sequence[int]) -> list[int]:
    """Groups of rows that are together in either of two partitions."""
    root: dict[tuple[int, int], tuple[int, int]] = {}

    def top(node: tuple[int, int]) -> tuple[int, int]:
        while root.setdefault(node, node) != node:
            node = root[node]
        return node

    for a, b in zip(one, two, strict=True):
        root[top((0, a))] = top((1, b))
    number: dict[tuple[int, int], int] = {}
    return [number.setdefault(top((0, a)), len(number)) for a in one]


def in_turn(labels: Tensor) -> list[int]:
    """Rows in an order in which each first part has as many of each class as can be; at most `MOST_LABELLED`."""
    seen = defaultdict[int, int](int)
    rank = []
    for label in labels.tolist():
        rank.append(seen[label])
        seen[label] += 1
    return sorted(range(len(rank)), key=lambda row: rank[row])[:MOST_LABELLED]


def read_features(found: Labelled, workspace: Workspace, budget: Budget) -> tuple[Labelled, int]:
    """Extract features while there is time: the images that have them now, and how many views of each.

    Raises:
        ValueError: when none can be extracted.
    """
    order = in_turn(found.labels)
    done = extract_in_time(workspace.cache, found.source, Pooled(), order, budget, SHARE * budget.seconds)
    rows = sorted(order[:done])
    kept = found if len(rows) == len(found.labels) else found.some(rows)
    views = affordable(workspace.cache, found.source, rows, budget)
    if views:
        need = Pooled(views=views, augment="crop-flip")
        seconds = 2 * SHARE_VIEWS * budget.left  # what was foreseen may take twice as long
        done = extract_in_time(workspace.cache, found.source, need, rows, budget, seconds)
        views = views if done == len(rows) else 0
    return kept, views


def extract_in_time(
    cache: FeatureCache, source: Source, need: Need, rows: Sequence[int], budget: Budget, seconds: float
) -> int:
    """Extract a need of images in their order for so many seconds; how many have it then.

    An interruption ends it, too, once there are some.
    """
    begun, done, size = budget.used, 0, FIRST_BLOCK
    while done < len(rows) and (not done or budget.used - begun < seconds):
        try:
            cache.fill_together(source, {need: np.asarray(rows[done : done + size])})
        except KeyboardInterrupt:
            if not done:
                raise
            break
        done = min(len(rows), done + size)
        rate = (budget.used - begun) / done
        size = max(FIRST_BLOCK // 4, int((seconds - (budget.used - begun)) / 4 / max(rate, 1e-6)))
    return done


def affordable(cache: FeatureCache, source: Source, rows: Sequence[int], budget: Budget) -> int:
    """How many random views of each image there is time for: `VIEWS`, one, or none."""
    rate = cache.cost(source, Pooled(), 1)
    for views in (VIEWS, 1):
        need = Pooled(views=views, augment="crop-flip")
        absent = sum(int(part.missing().sum()) for part in cache.parts(source, need, np.asarray(rows)))
        if absent * rate <= SHARE_VIEWS * budget.left:
            return views
    return 0
