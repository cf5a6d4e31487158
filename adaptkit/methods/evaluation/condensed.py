"""What is kept of answers and targets until metrics are made of them: little of each item, where a kind knows how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
