"""Batches of training images, drawn alike wherever they are drawn; a process may take its share of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch

from adaptkit.features.ahead import Ahead
from adaptkit.features.items import Images
from adaptkit.methods.schedule import Schedule

VAIN = 2  # times that pictures are decoded ahead in vain before it is left


class Batches:
    """Shuffled batches of training images, drawn from torch's global generator; any length of training, no workers."""

    def __init__(self, support: Images, schedule: Schedule) -> None:
        self.support, self.size = support, schedule.batch_size
        whole = len(support) // self.size
        self.count = whole if schedule.drop_last and whole else math.ceil(len(support) / self.size)
        self.next: Images | None = None
        self.ahead: list[list[Ahead]] = []  # what the last steps expected

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Images]:
        rows = [self.parts(batch) for batch in self.order().split(self.size)[: self.count]]
        for own, following in itertools.zip_longest(rows, rows[1:]):
            self.next = None if following is None else self.support[following]
            yield self.support[own]

    def order(self) -> torch.Tensor:
        """All images in the order of an epoch."""
        return torch.randperm(len(self.support))

    def parts(self, rows: torch.Tensor) -> torch.Tensor:
        """Which rows of a batch are read here: all."""
        return rows

    def expect_next(self) -> None:
        """Let threads decode the pictures of this epoch's next batch, unless it was in vain the last times.

        It is where something draws between two readings, e.g. dropout on a processor: other views are read then.
        """
        in_vain = [not any(one.used for one in step) for step in self.ahead if step]
        if self.next is not None and (in_vain[-VAIN:] != [True] * VAIN):
            self.ahead = [*self.ahead[-VAIN:], self.next.expect()]


class Shares(Batches):
    """One process's part of every batch: all draw the order that the first one draws."""

    def __init__(self, support: Images, schedule: Schedule, rank: int, world: int) -> None:
        super().__init__(support, schedule)
        self.rank, self.world = rank, world

    def order(self) -> torch.Tensor:
        """That of the first process, which others may have drawn more or less than."""
        order = super().order().to(self.support.device)
        torch.distributed.broadcast(order, 0)
        return order.cpu()

    def parts(self, rows: torch.Tensor) -> torch.Tensor:
        """This process's rows of a batch; the first row of all where there are fewer rows than processes."""
        own = rows.tensor_split(self.world)[self.rank]
        return own if len(own) else rows[:1]

    def weight(self, step: int) -> float:
        """What the mean over this process's part of a batch counts beside those of the others; all together `world`."""
        whole, start, stop = self.place(step)
        return (stop - start) * self.world / whole

    def place(self, step: int) -> tuple[int, int, int]:
        """Rows of an epoch's batch, and where this process's part of it begins and ends."""
        whole = min(self.size, len(self.support) - step * self.size)
        ends = [len(rows) for rows in torch.arange(whole).tensor_split(self.world)]
        return whole, sum(ends[: self.rank]), sum(ends[: self.rank + 1])
