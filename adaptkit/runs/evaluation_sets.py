"""What a method is asked once it has adapted: which images, in which order, answered among which classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from adaptkit.features.items import Images
from adaptkit.methods.task import Task
from adaptkit.runs.streams import Order, order


@dataclass(frozen=True)
class EvaluationSet:
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
        """Of the set's own classes."""
        return None if self.task is None else self.task.classnames


def requested(tests: Sequence[EvaluationSet], output: str) -> list[EvaluationSet]:
    """The tests of a method: the task's own, and of the others those from outside for scores, the rest for logits."""
    return [tested for tested in tests if tested is tests[0] or bool(tested.outside) == (output == "score")]


def restrict(images: Images, classes: range) -> Images:
    """The images of some classes, labelled from 0 on among these."""
    some = of_classes(images, classes)
    return some if some.labels is None else some.label(some.labels - classes.start)


def of_classes(images: Images, classes: range) -> Images:
    """The images of some classes, labelled as they were."""
    labels = images.labels
    if labels is None:
        raise ValueError("images must be labelled to be picked by class; got none")
    return images[((labels >= classes.start) & (labels < classes.stop)).nonzero()[:, 0]]


def among_classes(logits: Tensor, labels: Tensor, among: Sequence[int] | None) -> tuple[Tensor, Tensor]:
    """Answers and labels among some of the classes."""
    if among is None:
        return logits, labels
    new = torch.full((logits.shape[1],), -1)
    new[list(among)] = torch.arange(len(among))
    return logits[:, list(among)], new[labels]


def as_sets(tests: Images | Sequence[EvaluationSet]) -> Sequence[EvaluationSet]:
    """Test images as the one set that they are."""
    if isinstance(tests, list | tuple) and all(isinstance(tested, EvaluationSet) for tested in tests):
        return tests
    if not isinstance(tests, Images):
        raise ValueError(f"test images must be Images with labels, as ak.load returns; got {type(tests).__name__}")
    return [EvaluationSet("", tests, order("shuffled", tests.index.tolist()))]
