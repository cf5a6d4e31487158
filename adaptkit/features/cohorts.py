"""Rows that several parts still lack, image by image, and which of them enter a tower together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from adaptkit.features.answering import Ask
from adaptkit.features.needs import Need
from adaptkit.features.parts import Part
from adaptkit.towers.backbone import Backbone


class Cohort(NamedTuple):
    """What enters one tower together: prepared alike, and wanted by the same parts."""

    kind: Hashable
    parts: tuple[Part, ...]

    @property
    def backbone(self) -> Backbone:
        """The tower, one for all parts."""
        return self.parts[0].backbone

    @property
    def asks(self) -> tuple[Ask, ...]:
        """What is wanted of a pass, with the plugin that answers."""
        return tuple((part.need, part.by) for part in self.parts)

    @property
    def need(self) -> Need:
        """One that prepares items as all of them do."""
        return self.parts[0].need


class Row(NamedTuple):
    """One row before it is decoded: where it enters, the item and its view, and its place in each part."""

    cohort: Cohort
    item: int
    view: int
    places: tuple[int, ...]

    @property
    def planned(self) -> np.ndarray:
        """The id of the bytes that were there when it was planned."""
        return self.cohort.parts[0].ids[self.places[0]]


class Decoded(NamedTuple):
    """One row before the tower: what it is, the id of the bytes that were decoded, and what enters."""

    row: Row
    id: np.ndarray
    ready: Any
    slot: int = -1  # of shared memory that holds it


@dataclass
class Passing:
    """Rows on their way: what was decoded, when it entered, how rows and the tower's seconds are got, each part's share."""

    group: list[Decoded]
    began: float
    rows: dict[Part, Callable[[], Tensor]]
    seconds: Callable[[], float]
    shares: dict[Part, float]


class Held(NamedTuple):
    """What a pass gave, not stored yet: rows by part, and the seconds that each took."""

    group: list[Decoded]
    rows: dict[Part, Tensor]
    took: dict[Part, float]


class Pending:
    """Rows that some parts lack, each once, all of an item together, in the order in which items are first asked for.

    Held as numbers, four for each row, so that a million of them are 32 MB.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.rows, self.at = np.empty((0, 4), int), 0
        self.others: list[np.ndarray] = []  # rows that somebody else had claimed or stored
        self._queue([_absent(number, part) for number, part in enumerate(parts)])

    def __len__(self) -> int:
        return len(self.rows) - self.at

    def retry(self) -> None:
        """Look again at the rows that others had: what is not stored by now is pending."""
        rows = np.concatenate([np.empty((0, 4), int), *self.others])
        self.others = []
        for number, part in enumerate(self.parts):
            mine = np.flatnonzero(rows[:, 2] == number)
            stored = ~part.table.missing(part.ids[rows[mine, 3]])
            rows[mine[stored], 2] = -1
        self._queue([rows[rows[:, 2] >= 0]])

    def claim(self, least: int) -> list[list[Row]]:
        """Claim the next rows, so many or all of one item; those that were got, item by item."""
        end = min(self.at + least, len(self.rows))
        while 0 < end < len(self.rows) and self.rows[end, 0] == self.rows[end - 1, 0]:
            end += 1
        rows, self.at = self.rows[self.at : end], end
        mine = np.zeros(len(rows), bool)
        for number, part in enumerate(self.parts):
            own = np.flatnonzero(rows[:, 2] == number)
            if len(own):
                mine[own] = part.table.claim(part.ids[rows[own, 3]])
        if not mine.all():
            self.others.append(rows[~mine])
        return self._by_item(rows[mine])

    def _queue(self, rows: list[np.ndarray]) -> None:
        every = np.concatenate(rows)
        _, first, which = np.unique(every[:, 0], return_index=True, return_inverse=True)
        self.rows, self.at = every[np.argsort(first[which], kind="stable")], 0

    def _by_item(self, rows: np.ndarray) -> list[list[Row]]:
        """Rows of each item, those that enter a tower alike as one."""
        found: dict[int, dict[tuple[int, Hashable, int], list[tuple[int, int]]]] = {}
        for item, view, number, place in rows.tolist():
            part = self.parts[number]
            alike = id(part.backbone), part.kind(view), view
            found.setdefault(item, {}).setdefault(alike, []).append((number, place))
        return [
            [
                Row(Cohort(kind, tuple(self.parts[n] for n, _ in who)), item, view, tuple(place for _, place in who))
                for (_, kind, view), who in alike.items()
            ]
            for item, alike in found.items()
        ]


def _absent(number: int, part: Part) -> np.ndarray:
    """What a part lacks, ``(rows, 4)``: item, view, the part's number, place. Equal images are one row."""
    absent = np.flatnonzero(part.missing())
    ids = np.ascontiguousarray(part.ids[absent]).view("S16")[:, 0]
    places = absent[np.sort(np.unique(ids, return_index=True)[1])]
    return np.column_stack([part.items[places], np.full(len(places), number), places]).astype(int)
