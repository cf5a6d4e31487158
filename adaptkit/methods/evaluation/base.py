"""What every kind of evaluation has."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from adaptkit.methods.evaluation.condensed import Condensed


class Evaluation:
    """What answers of one kind are worth. A kind defines the four verbs `loss`, `right`, `objective` and `metrics`.

    Attributes:
        kind: its name, as `Splits.kind` has it.
        shape: of answers and targets, in words, for errors.
        headline: the metrics that a run is about, the first of which tables show.
        paired: the metric that is the mean of what `right` gives, but for its sign where smaller is better.
        unscaled: metrics that are shown as they are; every other one is a share, shown as a percentage.
        falling: metrics that are better where smaller.
    """

    kind: ClassVar[str]
    shape: ClassVar[str]
    headline: ClassVar[tuple[str, ...]]
    paired: ClassVar[str]
    unscaled: ClassVar[frozenset[str]] = frozenset()
    falling: ClassVar[frozenset[str]] = frozenset()

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Training loss, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} must define loss(answers, targets)")

    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """How right each item's answer is, ``(N,)``: booleans or real numbers, larger for better."""
        raise NotImplementedError(f"{type(self).__name__} must define right(answers, targets)")

    def objective(self, answers: Tensor, targets: Tensor) -> float:
        """What a search of hyperparameters maximises."""
        raise NotImplementedError(f"{type(self).__name__} must define objective(answers, targets)")

    def metrics(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        """Finite numbers by name."""
        raise NotImplementedError(f"{type(self).__name__} must define metrics(answers, targets)")

    def per_class(self, answers: Tensor, targets: Tensor) -> list[float | None]:
        """A number between 0 and 1 for each class, ``None`` where it has no item; empty where a kind has no classes."""
        return []

    def condense(self, answers: Tensor, targets: Tensor) -> Condensed:
        """What metrics are made of, item by item: by default its answer and its target as they are."""
        self.check(answers, targets)
        return Condensed({"answers": answers, "targets": targets})

    def metrics_of(self, items: Condensed) -> dict[str, float]:
        """The `metrics` of items, wherever they were condensed."""
        return self.metrics(items.columns["answers"], items.columns["targets"])

    def told_of(self, items: Condensed) -> tuple[Tensor, list[float | None]]:
        """What `right` and `per_class` say of items."""
        answers, targets = items.columns["answers"], items.columns["targets"]
        return self.right(answers, targets), self.per_class(answers, targets)

    def kept_of(self, items: Condensed) -> dict[str, Tensor]:
        """What is kept of the answers to items, a row for each; nothing where a kind's answers are large.

        Returns:
            ``predicted``, the class or label that is likeliest, and ``others``, up to four more; ``confidence`` and
            ``likely``, their probabilities; or ``score`` where an answer is one number; of maps small ones besides.
        """
        return {}

    def strata(self, targets: Tensor) -> Tensor:
        """Whole numbers, ``(N,)``, in place of class ids for who draws so many items of each class.

        Of items with several labels the first counts; those with none are a class of their own.
        """
        if targets.dim() == 1:
            return targets
        return torch.where(targets.bool().any(-1), targets.argmax(-1), targets.shape[-1])

    def fits(self, answers: Tensor, targets: Tensor) -> bool:
        """Whether both have shapes of this kind; their lengths are equal."""
        raise NotImplementedError(f"{type(self).__name__} must define fits(answers, targets)")

    def check(self, answers: Tensor, targets: Tensor) -> None:
        """Both have the shape of this kind, and at least one item.

        Raises:
            ValueError: when they have not.
        """
        fit = answers.dim() and targets.dim() and len(answers) == len(targets) > 0 and self.fits(answers, targets)
        if not fit:
            got = f"{tuple(answers.shape)} and {tuple(targets.shape)}"
            raise ValueError(f"answers and targets must be {self.shape}, N at least 1; got {got}")
        if not answers.isfinite().all():
            count = int((~answers.isfinite()).sum())
            raise ValueError(f"answers must be finite numbers; got {count} of {answers.numel()} that are not")


def check_binary(targets: Tensor, what: str) -> None:
    """Targets are 0 or 1, and both occur: else metrics of ranks have no meaning.

    Raises:
        ValueError: when they are not.
    """
    if not ((targets == 0) | (targets == 1)).all():
        raise ValueError(f"{what} must be 0 or 1; got {targets.unique()[:5].tolist()}")
    if not targets.any() or targets.all():
        raise ValueError(f"{what} must be 0 for some and 1 for others; got {int(targets.flatten()[0])} alone")
