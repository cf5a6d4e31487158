"""Rows as one reading wants them: of which table, made from which items, and by which names they are on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from adaptkit.features.items import Source
from adaptkit.features.needs import Need
from adaptkit.features.tables import StoredTable
from adaptkit.towers.backbone import Backbone


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of one stored table, in the order one reading wants them: the plain images, or random views of them."""

    need: Need
    random: bool
    table: StoredTable
    backbone: Backbone
    items: np.ndarray  # (rows, 2): item of the source, view
    ids: np.ndarray  # (rows, 16)

    @property
    def by(self) -> str:
        """The plugin that answers for the need, as the table's key has it."""
        by = self.table.spec["by"]
        return str(by[0]) if isinstance(by, list) else ""

    @property
    def name(self) -> str:
        """As bars and counts show it."""
        return type(self.need).__name__ + (" views" if self.random else "")

    @property
    def preparation(self) -> Preparation:
        """How an item is made ready for the need."""
        return Preparation(self.need, self.backbone)

    def joined(self, other: Part) -> Part:
        """This part and another of the same table as one."""
        items, ids = np.concatenate([self.items, other.items]), np.concatenate([self.ids, other.ids])
        return replace(self, items=items, ids=ids)

    def missing(self) -> np.ndarray:
        """Which of the rows are not stored, ``(rows,)``."""
        return self.table.missing(self.ids)


class Preparation(NamedTuple):
    """How items are made ready for a need by a tower."""

    need: Need
    backbone: Backbone

    def kind(self, view: int) -> Hashable:
        """Equal for those that make the same pixels of an item; a need that prepares its own way shares with none."""
        own = type(self.need)
        if own.prepare is not Need.prepare or own.collate is not Need.collate:
            return self.need, id(self.backbone)
        return self.need.augment if view >= 0 else "", id(self.backbone.preprocess)


def read_item(source: Source, i: int, preparations: Sequence[tuple[Preparation, int]]) -> tuple[str, list[Any]]:
    """The key of item ``i``, and what each preparation makes of it for a view, of the same bytes, read once."""
    key, item = source.open(i)
    made: dict[tuple[Hashable, int], Any] = {}
    for preparation, view in preparations:
        if (what := (preparation.kind(view), view)) not in made:
            made[what] = preparation.need.prepare(item, preparation.backbone, view, view_seed(key, view))
    return key, [made[preparation.kind(view), view] for preparation, view in preparations]


def prepared(source: Source, need: Need, backbone: Backbone, i: int, view: int) -> tuple[str, Any]:
    """The key of item ``i`` and what `need` prepares it to, of the same bytes; a view is seeded by the key."""
    key, (ready,) = read_item(source, i, [(Preparation(need, backbone), view)])
    return key, ready


def view_seed(key: str, view: int, salt: str = "") -> str:
    """What a view is drawn from: equal seeds are equal views, on any machine."""
    return f"{key}/{view}{salt}"


def pairs(index: Sequence[int], views: Sequence[int]) -> np.ndarray:
    """Each view of each item, ``(N * V, 2)``, all views of an item one after another."""
    return np.stack([np.repeat(np.asarray(index, int), len(views)), np.tile(np.asarray(views, int), len(index))], 1)


def row_id(key: str, view: int) -> np.ndarray:
    """The name on disk of one view of an item, -1 for the plain one: 16 bytes of a digest."""
    return np.frombuffer(hashlib.blake2b(f"{key}#{view}".encode(), digest_size=16).digest(), np.uint8)


def row_ids(source: Source, items: np.ndarray) -> np.ndarray:
    """The names on disk of items and their views ``(rows, 2)``, ``(rows, 16)``."""
    ids, last, key = np.empty((len(items), 16), np.uint8), -1, ""
    for at, (i, view) in enumerate(items.tolist()):
        last, key = (i, key) if i == last else (i, source.key(i))
        ids[at] = row_id(key, view)
    return ids
