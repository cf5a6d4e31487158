"""Compute the rows that a table lacks: decode ahead, answer batch by batch, commit what a kill must not lose."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from adaptkit.features.answering import Answering
from adaptkit.features.items import Source
from adaptkit.features.needs import Need
from adaptkit.features.tables import StoredTable
from adaptkit.towers.backbone import Backbone

COMMIT = 2.0  # seconds of work that a kill may lose


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


@dataclass(frozen=True)
class Extraction:
    """How rows are computed.

    Attributes:
        answering: the plugins that may compute them.
        dtype: of stored rows.
        batch_size: rows in one forward pass.
        progress: show a bar.
        count: told what was computed, by name, rows and seconds.
    """

    answering: Answering
    dtype: str
    batch_size: int
    progress: bool
    count: Callable[[str, int, float], None]

    def complete(self, source: Source, part: Part, backbone: Backbone) -> None:
        """Compute and store the rows of a part that are missing, each under the key of the bytes it was made of."""
        if part.missing().any():
            with part.table.writing():  # another process may have been first: look again under the lock
                todo = np.flatnonzero(part.missing())
                _, first = np.unique(part.ids[todo], axis=0, return_index=True)  # equal images are one row
                self._extract(source, part, backbone, todo[np.sort(first)].tolist())

    def _extract(self, source: Source, part: Part, backbone: Backbone, todo: list[int]) -> None:
        title = f"{source.name} · {part.name}"
        bar = tqdm(total=len(todo), desc=title, unit="row", disable=not self.progress, leave=False)
        held: list[tuple[np.ndarray, Tensor]] = []
        began, done = time.perf_counter(), 0
        with bar:
            for ids, rows in self._batches(source, part, backbone, todo):
                held.append((ids, rows.to("cpu", getattr(torch, part.need.dtype or self.dtype))))
                done += len(ids)
                bar.update(len(ids))
                took = time.perf_counter() - began
                if took > COMMIT or done == len(todo):
                    self._commit(part, held, took)
                    held, began = [], time.perf_counter()

    def _commit(self, part: Part, held: list[tuple[np.ndarray, Tensor]], took: float) -> None:
        ids, rows = np.concatenate([ids for ids, _ in held]), torch.cat([rows for _, rows in held])
        part.table.append(ids, rows.numpy(), took)
        self.count(part.name, len(ids), took)

    def _batches(
        self, source: Source, part: Part, backbone: Backbone, todo: list[int]
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Ids of what was decoded, and its rows; items are decoded ahead, while the tower works."""
        size = part.need.batch or self.batch_size
        groups = [[part.items[j] for j in todo[i : i + size]] for i in range(0, len(todo), size)]

        def decode(item: tuple[int, int]) -> tuple[np.ndarray, Any]:
            key, ready = prepared(source, part.need, backbone, *item)
            return row_id(key, item[1]), ready

        for decoded in ahead(decode, groups) if part.need.visual else ([*map(decode, group)] for group in groups):
            ids, ready = zip(*decoded, strict=True)
            yield np.stack(ids), self.answering.ask(part.need, backbone, ready, part.by)


def ahead(decode: Callable[[Any], Any], groups: Sequence[Sequence[Any]]) -> Iterator[list[Any]]:
    """What `decode` makes of each group, in order, with a pool of threads that is two groups ahead."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        waiting = [pool.map(decode, group) for group in groups[:2]]
        for k in range(len(groups)):
            done = list(waiting.pop(0))
            if k + 2 < len(groups):
                waiting.append(pool.map(decode, groups[k + 2]))
            yield done


def prepared(source: Source, need: Need, backbone: Backbone, i: int, view: int, salt: str = "") -> tuple[str, Any]:
    """The key of item ``i`` and what `need` prepares it to, of the same bytes; a view is seeded by the key."""
    key, item = source.open(i)
    return key, need.prepare(item, backbone, view, f"{key}/{view}{salt}")


def row_id(key: str, view: int) -> np.ndarray:
    """The name on disk of one view of an item, -1 for the plain one: 16 bytes of a digest."""
    return np.frombuffer(hashlib.blake2b(f"{key}#{view}".encode(), digest_size=16).digest(), np.uint8)
