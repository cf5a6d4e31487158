"""Datasets: their parts, and several sources as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptkit.features.items import Source
from adaptkit.io.text import distinct

TOLD = 5  # of the images that are left out, in a line


class Joined:
    """Several sources as one."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources, self.name = sources, " + ".join(s.name for s in sources)
        self.labels = list(chain.from_iterable(s.labels for s in sources))
        self.starts = [0, *accumulate(len(s) for s in sources)]

    def __len__(self) -> int:
        return self.starts[-1]

    def _find(self, i: int) -> tuple[Source, int]:
        which = bisect_right(self.starts, i) - 1
        return self.sources[which], i - self.starts[which]

    def key(self, i: int) -> str:
        """Digest of image ``i``."""
        source, j = self._find(i)
        return source.key(j)

    def where(self, i: int) -> str | int:
        """The place of item ``i`` in its source, or its number there."""
        source, j = self._find(i)
        return getattr(source, "where", int)(j)

    def open(self, i: int) -> tuple[str, Any]:
        """The key and the item ``i``, of the same bytes."""
        source, j = self._find(i)
        return source.open(j)

    def picture_file(self, i: int) -> Path | None:
        """The file that holds item ``i`` alone."""
        return picture_file_of(*self._find(i))


@dataclass(frozen=True, eq=False)
class Relabelled:
    """Some items of a source, labelled among the classes of another dataset.

    Attributes:
        source: whose items they are.
        rows: which of them.
        labels: a class id for each.
        classes: the ids that occur, ``None`` for all.
        name: as progress bars and tables show it.
        targets: rows of numbers in place of labels, for other kinds than classification.
    """

    source: Source
    rows: Sequence[int]
    labels: Sequence[int]
    classes: Sequence[int] | None
    name: str
    targets: Sequence[Any] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def key(self, i: int) -> str:
        """Digest of image ``i``."""
        return self.source.key(self.rows[i])

    def where(self, i: int) -> str | int:
        """The place of item ``i`` in the source, or its number there."""
        return getattr(self.source, "where", int)(self.rows[i])

    def open(self, i: int) -> tuple[str, Any]:
        """The key and the item ``i``, of the same bytes."""
        return self.source.open(self.rows[i])

    def picture_file(self, i: int) -> Path | None:
        """The file that holds item ``i`` alone."""
        return picture_file_of(self.source, self.rows[i])


@dataclass(frozen=True)
class Splits:
    """A dataset.

    Attributes:
        name: as recipes write it.
        classnames: C names in the dataset's order, as sentences have them; labels index them. Names may repeat; nothing
            is keyed by them.
        train: labelled images to learn from.
        val: labelled images to choose by; may be ``None``.
        test: labelled images to be judged by.
        domains: further test sets with the same classes, by name.
        templates: the dataset's own prompt templates; the class name replaces ``{}``.
        source: where the images come from and under which licence.
        kind: what is asked about an item: ``"classification"``, ``"multi-label"``, ``"ranking"``, ``"maps"`` or
            ``"ordinal"``; see `adaptkit.methods.evaluation`. Sources of other kinds than classification may have
            ``targets``, one row an item, in place of ``labels``.
        parted: how images were parted into train, val and test where their author did not say; a protocol names it.
        left_out: images that cannot be read and are none of the sources, each with its place and the reason.
        notes: what else whoever runs it should know of what was found there, a line each.
        labelnames: what answers call the classes, C names that all differ; default `classnames`, numbered where they
            repeat.
        pool: images to learn from without labels, e.g. of another domain; ``None`` where they are those of `train`.
        gallery: of a ranking, what is searched, where that is items and not the sentences of the classes; `classnames`
            are then the names of its items, and sources are of a `Composite`'s items.

    >>> from adaptkit.runs.loading import pick_dataset
    >>> toy = pick_dataset("toy")
    >>> len(toy.classnames), len(toy.train), len(toy.test), list(toy.domains)
    (5, 100, 60, ['noisy'])
    """

    name: str
    classnames: tuple[str, ...]
    train: Source
    test: Source
    val: Source | None = None
    domains: Mapping[str, Source] = field(default_factory=dict)
    templates: tuple[str, ...] = ("a photo of a {}.",)
    source: str = ""
    kind: str = "classification"
    parted: str = ""
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    labelnames: tuple[str, ...] = ()
    pool: Source | None = None
    gallery: Source | None = None

    def __post_init__(self) -> None:
        """Names that tell all classes apart."""
        if self.gallery is not None and len(self.gallery) != len(self.classnames):
            got = f"{len(self.classnames)} for {len(self.gallery)} items of {self.name}"
            raise ValueError(f"classnames must be one for each item of the gallery; got {got}")
        object.__setattr__(self, "labelnames", distinct(self.labelnames or self.classnames))

    def said(self) -> list[str]:
        """What was left out and what else there is to know, in lines."""
        count = sum(len(source) for source in (self.train, self.val, self.test) if source is not None)
        lines = [f"{self.name}: {note}" for note in self.notes]
        if bad := self.left_out:
            told = "; ".join(bad[:TOLD]) + (f"; and {len(bad) - TOLD:,} more" if len(bad) > TOLD else "")
            lines.append(
                f"{self.name}: left out {len(bad):,} of {count + len(bad):,} images, which cannot be read: {told}"
            )
        return lines


def picture_file_of(source: Source, i: int) -> Path | None:
    """The file whose bytes alone make item ``i`` and its key, so that any process may open it; None where none does."""
    where = getattr(source, "picture_file", None)
    return where(i) if where else None


def some_of(source: Source, rows: Sequence[int]) -> Relabelled:
    """Some items of a source, as they were."""
    targets = getattr(source, "targets", None)
    labels = [source.labels[i] for i in rows] if targets is None else []
    return Relabelled(source, rows, labels, None, source.name, None if targets is None else [targets[i] for i in rows])


def targets_of(source: Source) -> Tensor:
    """What answers to a source's items are compared with, ``(N, ...)`` whole numbers: its ``targets`` or labels."""
    given = getattr(source, "targets", None)
    return torch.as_tensor(np.asarray(source.labels if given is None else given)).long()
