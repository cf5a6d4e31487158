"""Rows as one reading wants them: of which table, made from which items, and by which names they are on disk."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adaptkit.features.items import Source
from adaptkit.features.names import row_id as row_id
from adaptkit.features.names import view_seed as view_seed
from adaptkit.features.needs import Need
from adaptkit.features.tables import StoredTable
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.preprocess import Preprocess

Index = Sequence[int] | np.ndarray  # items of a source; an array where there may be millions
AT_A_TIME = 4096  # whose numbers are Python's at once


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

    def kind(self, view: int) -> Hashable:
        """Equal for parts that get the same pixels of an item; a need that prepares its own way shares with none."""
        how = self.backbone.preprocess
        if not usual(self.need):
            return self.need, id(self.backbone)
        return self.need.augment if view >= 0 else "", how if type(how) is Preprocess else id(how)

    def joined(self, other: Part) -> Part:
        """This part and another of the same table as one."""
        items, ids = np.concatenate([self.items, other.items]), np.concatenate([self.ids, other.ids])
        return replace(self, items=items, ids=ids)

    def missing(self) -> np.ndarray:
        """Which of the rows are not stored, ``(rows,)``."""
        return self.table.missing(self.ids)


def usual(need: Need) -> bool:
    """Whether images are prepared for a need as for all."""
    return need.visual and type(need).prepare is Need.prepare and type(need).collate is Need.collate


def prepared(source: Source, need: Need, backbone: Backbone, i: int, view: int) -> tuple[str, Any]:
    """The key of item ``i`` and what `need` prepares it to, of the same bytes; a view is seeded by the key."""
    key, item = source.open(i)
    return key, need.prepare(item, backbone, view, view_seed(key, view))


def pairs(index: Index, views: Sequence[int]) -> np.ndarray:
    """Each view of each item, ``(N * V, 2)``, all views of an item one after another."""
    return np.stack([np.repeat(np.asarray(index, int), len(views)), np.tile(np.asarray(views, int), len(index))], 1)


def row_ids(source: Source, items: np.ndarray) -> np.ndarray:
    """The names on disk of items and their views ``(rows, 2)``, ``(rows, 16)``."""
    ids, last, key = np.empty((len(items), 16), np.uint8), -1, ""
    for start in range(0, len(items), AT_A_TIME):
        for at, (i, view) in enumerate(items[start : start + AT_A_TIME].tolist(), start):
            last, key = (i, key) if i == last else (i, source.key(i))
            ids[at] = row_id(key, view)
    return ids
