"""Rows as one reading wants them: of which table, made from which items, and by which names they are on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptkit.features.items import Source
from adaptkit.features.names import row_id as row_id
from adaptkit.features.names import view_seed as view_seed
from adaptkit.features.needs import Need
from adaptkit.features.tables import StoredTable
from adaptkit.towers.backbone import Backbone


@dataclass(frozen=True)
class Part:
    """Rows of one stored table, in the order one reading wants them: the plain images, or random views of them."""

    need: Need
    random: bool
    table: StoredTable
    items: list[tuple[int, int]]  # (item of the source, view)
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

    def missing(self) -> np.ndarray:
        """Which of the rows are not stored, ``(rows,)``."""
        return self.table.missing(self.ids)


def prepared(source: Source, need: Need, backbone: Backbone, i: int, view: int) -> tuple[str, Any]:
    """The key of item ``i`` and what `need` prepares it to, of the same bytes; a view is seeded by the key."""
    key, item = source.open(i)
    return key, need.prepare(item, backbone, view, view_seed(key, view))
