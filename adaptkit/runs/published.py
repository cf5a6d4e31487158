"""Numbers from papers, as recipes quote them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Published:
    """One number that somebody else reports.

    Attributes:
        method: its name, or its row's, in the recipe.
        value: percent.
        source: where it stands, so that anyone can look.
        shots: labelled images per class; 0 for any, where a method sees none.
        metric: as `Result` names it.
        backbone: it holds for; "" is the recipe's.
        datasets: 1, or the number of datasets that it is the mean of.
        within: points that ours may be away before ``adaptkit run --verify`` fails.
    """

    method: str
    value: float
    source: str
    shots: int = 0
    metric: str = "accuracy"
    backbone: str = ""
    datasets: int = 1
    within: float = 1.0

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError(f"a published number must have a source; got none for {self.method} at {self.shots} shots")

    def names(self, label: str, labels: Collection[str]) -> bool:
        """Whether a row is meant, by its label, or by the method's name where no row has that as its label."""
        return self.method == label or (self.method == label.partition("(")[0] and self.method not in labels)
