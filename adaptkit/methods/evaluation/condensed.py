"""What is kept of answers and targets until metrics are made of them: little of each item, where a kind knows how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LIKELIEST = 5  # classes or labels of an answer that are kept, the likeliest ones


@dataclass(frozen=True)
class Condensed:
    """Some items.

    Attributes:
        columns: by name, a row for each item.
        width: how many classes, or what else answers have a column for.
    """

    columns: Mapping[str, Tensor]
    width: int = 0

    def __getitem__(self, rows: slice | Tensor) -> Condensed:
        return Condensed({name: column[rows] for name, column in self.columns.items()}, self.width)

    @classmethod
    def joined(cls, parts: Sequence[Condensed]) -> Condensed:
        """One after the other."""
        names = parts[0].columns
        return cls({name: torch.cat([part.columns[name] for part in parts]) for name in names}, parts[0].width)


def likeliest(scores: Tensor, best: Tensor, among: Tensor | None = None) -> dict[str, Tensor]:
    """The classes that answers ``(N, C)`` hold likeliest, without the best one, and what they give to each.

    Args:
        scores: larger for likelier classes, as they are kept.
        best: the class that is answered, ``(N,)``.
        among: the ``(N, K)`` classes that are likeliest, in any order, where somebody knows.

    Returns:
        ``predicted`` and ``others``, ``(N,)`` and ``(N, K - 1)`` class ids.
    """
    if among is None:
        among = scores.topk(min(LIKELIEST, scores.shape[1]), sorted=False).indices
    given = scores.gather(1, among).masked_fill(among == best[:, None], float("inf"))  # the best one first
    order = given.argsort(dim=1, descending=True, stable=True)[:, 1:]
    return {"predicted": best, "others": among.gather(1, order)}
