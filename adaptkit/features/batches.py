"""Rows of several shards that are read at once and held against their sums together: one by one takes far longer."""

from __future__ import annotations

import numpy as np

from adaptkit.features.shards import PIECE, Shard, row_sums


class RowBatch:
    """Rows to look at, as many as fit into some memory.

    Attributes:
        table: the name of its folder.
        ids: uint8 ``(N, 16)``, of all rows that were asked for.
        out: gets their bytes, uint8 ``(N, W)``; None to look at them only.
    """

    def __init__(self, table: str, ids: np.ndarray, out: np.ndarray | None) -> None:
        self.table, self.ids, self.out = table, ids, out
        self._parts: list[tuple[Shard, np.ndarray, np.ndarray]] = []
        self._rows = self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether it is to be read before more is added."""
        return self._bytes > PIECE

    def add(self, shard: Shard, at: np.ndarray, mine: np.ndarray) -> None:
        """Rows of a shard, ascending, and which of the ids they have."""
        if self.out is None and len(at):  # only what is new is looked at
            unknown = shard.unknown(at)
            if unknown.any():
                at, mine = at[unknown], mine[unknown]
            elif shard.unchanged():
                return
        self._parts.append((shard, at, mine))
        self._rows += len(at)
        self._bytes += len(at) * (shard.width + 8)

    def read(self) -> tuple[Shard, np.ndarray | None, np.ndarray] | None:
        """Read them; a shard that is not what it was, or rows of one that are not what was written, with their ids."""
        parts, count, self._parts, self._rows, self._bytes = self._parts, self._rows, [], 0, 0
        if not parts:
            return None
        width = parts[0][0].width
        rows, sealed = np.empty((count, width), np.uint8), np.empty((count, 8), np.uint8)
        new, start = np.zeros(count, bool), 0
        for shard, at, mine in parts:
            end = start + len(at)
            unknown = shard.read(at, rows[start:end], sealed[start:end]) if shard.width == width else None
            if unknown is None:
                return shard, None, self.ids[mine]
            new[start:end], start = unknown, end
        mine = np.concatenate([mine for *_, mine in parts])
        good = ~new
        if new.any():
            good[new] = (row_sums(self.table, self.ids[mine[new]], rows[new]) == sealed[new]).all(1)
            start = 0
            for shard, at, own in parts:
                some = good[start : start + len(at)]
                start += len(at)
                shard.trust(at[some])
                if not some.all():
                    return shard, at[~some], self.ids[own[~some]]
        if self.out is not None:
            self.out[mine] = rows
        return None
