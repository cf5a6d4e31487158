"""What a method is asked once it has adapted: which images, in which order, answered among which classes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from adaptkit.images import Images, Source
from adaptkit.streams import Order
from adaptkit.task import Task


@dataclass(frozen=True)
class Exam:
    """One test set.

    Attributes:
        name: "" for the task's own.
        images: labelled, but for those from outside.
        order: how a stream meets them, by seed.
        task: whose classes these are, where not those that the method adapted to.
        among: labels that answers are judged among, where not all occur.
        parts: rows that are judged by themselves as well, by name.
        outside: images of none of the classes, which scores must tell from the task's own: near to them or far.
    """

    name: str
    images: Images
    order: Order
    task: Task | None = None
    among: Sequence[int] | None = None
    parts: Mapping[str, slice] = field(default_factory=dict)
    outside: Literal["", "near", "far"] = ""

    @property
    def classnames(self) -> Sequence[str] | None:
        """Of the exam's own classes."""
        return None if self.task is None else self.task.classnames


def asked(exams: Sequence[Exam], output: str) -> list[Exam]:
    """The exams of a method: the task's own, and of the others those from outside for scores, the rest for logits."""
    return [exam for exam in exams if exam is exams[0] or bool(exam.outside) == (output == "score")]


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

    def image(self, i: int) -> Image.Image:
        """Image ``i``, decoded."""
        source, j = self._find(i)
        return source.image(j)


def restrict(images: Images, classes: range) -> Images:
    """The images of some classes, labelled from 0 on among these."""
    labels = images.labels
    if labels is None:
        raise ValueError("images must be labelled to be picked by class; got none")
    rows = ((labels >= classes.start) & (labels < classes.stop)).nonzero()[:, 0]
    return images[rows].label(labels[rows] - classes.start)


def columns(logits: Tensor, labels: Tensor, among: Sequence[int] | None) -> tuple[Tensor, Tensor]:
    """Answers and labels among some of the classes."""
    if among is None:
        return logits, labels
    new = torch.full((logits.shape[1],), -1)
    new[list(among)] = torch.arange(len(among))
    return logits[:, list(among)], new[labels]
