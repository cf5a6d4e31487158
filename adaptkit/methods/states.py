"""What methods share that tell anomalies by words: an object as it should be, and the same object damaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from adaptkit.io.ranges import Positive
from adaptkit.methods.evaluation.maps import stretched
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from adaptkit.towers.backbone import Backbone, unit

STATES = (
    ("{}", "flawless {}", "perfect {}", "unblemished {}", "{} without flaw", "{} without defect", "{} without damage"),
    ("damaged {}", "{} with flaw", "{} with defect", "{} with damage"),
)  # normal and anomalous
STATE_TEMPLATES = (
    *("a cropped photo of the {}.", "a close-up photo of a {}.", "a close-up photo of the {}."),
    *("a bright photo of a {}.", "a bright photo of the {}.", "a dark photo of the {}.", "a dark photo of a {}."),
    *("a jpeg corrupted photo of the {}.", "a jpeg corrupted photo of a {}."),
    *("a blurry photo of the {}.", "a blurry photo of a {}.", "a photo of a {}.", "a photo of the {}."),
    *("a photo of a small {}.", "a photo of the small {}.", "a photo of a large {}.", "a photo of the large {}."),
    *("a photo of the {} for visual inspection.", "a photo of a {} for visual inspection."),
    *("a photo of the {} for anomaly detection.", "a photo of a {} for anomaly detection."),
)


class BetweenStates(Method):
    """A method of maps whose `fit` writes an object as it should be, and damaged: ``self.text``, ``(2, D)``.

    Sentences are those of WinCLIP, arXiv:2303.14814. Where a task has several objects, theirs are averaged.

    >>> import adaptkit as ak
    >>> from adaptkit.methods.states import BetweenStates
    >>> class Whole(BetweenStates):
    ...     "One number for each image, all over its map."
    ...
    ...     def forward(self, batch):
    ...         return self.stretched(self.anomalous(batch.x)[:, None, None])
    >>> len(Whole().sentences(["bottle"])[1])
    84
    """

    temperature: Positive = 0.07  # of cosines

    answers: ClassVar[tuple[str, ...]] = ("maps",)

    if TYPE_CHECKING:
        backbone: Backbone
        text: Tensor

    def fit(self, task: Task) -> None:
        """Keep the mean embedding of each state's sentences, and the size of maps."""
        self.backbone, self.size = task.backbone, size_of(task)
        encoded = [task.encode(sentences).mean(0) for sentences in self.sentences(task.classnames)]
        self.register_buffer("text", torch.stack(encoded))  # (2, D), normal and anomalous

    def sentences(self, names: Sequence[str]) -> list[list[str]]:
        """What is said of normal and of anomalous objects, state by state."""
        plain = [name.replace("_", " ") for name in names]
        called = [[state.replace("{}", name) for name in plain for state in own] for own in STATES]
        return [[template.replace("{}", what) for what in own for template in self.templates()] for own in called]

    def templates(self) -> Sequence[str]:
        """Sentences with a gap for the object in its state."""
        return STATE_TEMPLATES

    def anomalous(self, x: Tensor) -> Tensor:
        """The probability of the words for damaged, ``(...)``, of unit-norm ``(..., D)``."""
        return (x @ unit(self.text).T / self.temperature).softmax(-1)[..., 1]

    def stretched(self, grid: Tensor) -> Tensor:
        """Scores of patches, ``(B, h, w)``, as maps of the size of the tower's images; see `stretched`."""
        return stretched(grid, self.size)


def squared(patches: Tensor) -> Tensor:
    """Scores of patches row by row, ``(B, P)``, as a square, ``(B, h, w)``."""
    return patches.unflatten(1, (math.isqrt(patches.shape[1]), -1))


def size_of(task: Task) -> int:
    """The side of the pictures that enter the task's tower, pixels; 0 where there is none.

    Raises:
        ValueError: for a tower that sees the middle of a picture only: a map would be of that.
    """
    how = getattr(task.backbone, "preprocess", None)
    if how is not None and how.fit == "crop" and how.edge not in (0, how.size):
        got = f"one that crops {how.size} of {how.edge} pixels"
        raise ValueError(f"the backbone must see whole pictures to answer with maps; got {got}; choose another")
    return how.size if how is not None else 0
