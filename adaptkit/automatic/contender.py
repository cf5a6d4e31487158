"""A method in the contest, and what it answered so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from adaptkit.automatic.portfolio import Candidate
from adaptkit.runs.build import method


@dataclass
class Contender:
    """A method in the contest.

    Attributes:
        candidate: the method.
        right: of each finished repeat, whether each tested image was answered right, ``(N,)`` booleans.
        logits: of the first repeat, ``(N, C)``, of each image by a method that did not learn from it.
        seconds: that each fold took.
        why: it was not tried further; "" for none.
        failed: whether that is because it failed.
    """

    candidate: Candidate
    right: list[Tensor] = field(default_factory=list)
    logits: Tensor | None = None
    seconds: list[float] = field(default_factory=list)
    why: str = ""
    failed: bool = False

    @property
    def label(self) -> str:
        """Its name, and of which images it learns, which the portfolio has only once."""
        return self.candidate.label

    @cached_property
    def unlearned(self) -> bool:
        """Whether it learns from no image: then each fold answers alike."""
        return not method(self.candidate.spec).all_needs(of_support=True)

    @property
    def repeats(self) -> int:
        """Of the cross-validation, that were finished."""
        return min(len(self.right), 1) if self.unlearned else len(self.right)

    @property
    def cost(self) -> float:
        """Seconds that one more fold will take."""
        later = self.seconds[1:] or self.seconds  # the first loads what the others share
        return sum(later) / len(later)

    def accuracy(self) -> float:
        """Mean over the finished repeats."""
        return float(torch.stack(self.right).double().mean())
