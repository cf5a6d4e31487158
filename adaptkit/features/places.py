"""Where rows are: sorted ids with their places, in memory or in a file that the writer made of many shards.

Such a file is derived and never trusted: the row's own sum decides, and of a missing or wrong one the ids are read from
the shards. It is a safetensors file of ``high`` and ``low``, the halves of the sorted ids, and ``where``: the number of
a shard in the list of its metadata, above 32 bits, and the row in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from adaptkit.features.shards import halves
from adaptkit.io.files import digest, safetensors_layout, signature
from adaptkit.io.paths import regular

ROW = 24  # bytes of a row in a file
ARRAYS = {"high": "<u8", "low": "<u8", "where": "<i8"}


class Places:
    """Sorted ids of some shards.

    Attributes:
        names: of the shards.
        path: of the file, if it is one.
    """

    def __init__(self, names: list[str], arrays: Iterable[np.ndarray], path: Path | None = None) -> None:
        self.names, self.path = names, path
        self.high, self.low, self.where = arrays
        self._local = {name: i for i, name in enumerate(names)}
        self._rows = np.zeros(len(names), int)  # that places may tell of; 0 for a shard that is not told of
        self._numbers = np.zeros(len(names), int)

    @classmethod
    def of(cls, names: list[str], ids: list[np.ndarray]) -> Places:
        """Sort the ids of some shards; of equal ones the last counts."""
        both = halves(np.concatenate(ids))
        where = np.concatenate([(i << 32) + np.arange(len(own)) for i, own in enumerate(ids)])
        return cls(names, _sorted(*both, where))

    @property
    def size(self) -> int:
        """Bytes of a file that has it."""
        return ROW * len(self.high)

    @property
    def told(self) -> list[str]:
        """The shards that it tells of."""
        return [name for name, rows in zip(self.names, self._rows, strict=True) if rows]

    def tell(self, name: str, number: int, rows: int) -> None:
        """Tell of a shard from now on, by its number."""
        self._numbers[self._local[name]], self._rows[self._local[name]] = number, rows

    def lose(self, name: str) -> bool:
        """Tell of a shard no more; whether any is left."""
        self._rows[self._local[name]] = 0
        return bool(self._rows.any())

    def find(self, high: np.ndarray, low: np.ndarray) -> np.ndarray:
        """The place of each id, the number of a shard above 32 bits and the row in it; -1 for none."""
        found = np.full(len(high), -1)
        at = np.searchsorted(self.high, high)
        left = np.flatnonzero(at < len(self.high))
        left = left[self.high[at[left]] == high[left]]
        while len(left):  # more than once only where ids have the same first half
            same = self.low[at[left]] == low[left]
            found[left[same]] = self._global(self.where[at[left[same]]])
            left = left[~same]
            at[left] += 1
            left = left[at[left] < len(self.high)]
            left = left[self.high[at[left]] == high[left]]
        return found

    def _global(self, where: np.ndarray) -> np.ndarray:
        """Places among all shards, -1 where this tells of none; a file may say anything."""
        local, row = where >> 32, where & 0xFFFFFFFF
        local = np.where((local >= 0) & (local < len(self.names)), local, 0)
        sound = (where >> 32 == local) & (row < self._rows[local])
        return np.where(sound, (self._numbers[local] << 32) + row, -1)

    def written(self) -> tuple[str, bytes]:
        """A name and the bytes of a file."""
        parts = zip(ARRAYS.items(), (self.high, self.low, self.where), strict=True)
        arrays = {name: part.astype(kind).view(np.uint8).reshape(-1, 8) for (name, kind), part in parts}
        data = save(arrays, metadata={"shards": " ".join(self.names)})
        return f"{digest(' '.join(self.names).encode())[:16]}.safetensors", data


def merged(runs: list[Places]) -> Places:
    """One run that tells what some tell."""
    names = [name for run in runs for name in run.told]
    numbers = {name: i for i, name in enumerate(names)}
    high, low, where = [], [], []
    for run in runs:
        new = np.array([numbers.get(name, -1) for name in run.names])
        local = np.clip(run.where >> 32, 0, len(new) - 1)
        told = np.flatnonzero((new[local] >= 0) & (local == run.where >> 32))
        high.append(run.high[told])
        low.append(run.low[told])
        where.append((new[local[told]] << 32) + (run.where[told] & 0xFFFFFFFF))
    return Places(names, _sorted(*(np.concatenate(part) for part in (high, low, where))))


def read_places(path: Path) -> Places | None:
    """The run in a file, mapped; None for one that is none."""
    try:
        with open(regular(path, "an index", 2**62), "rb") as file:
            seen = signature(file.fileno())
            layout, said = safetensors_layout(file, seen[1] if seen else 0)
        rows = layout["high"][1][0]
        if any(layout[part][:2] != (np.dtype("u1"), (rows, 8)) for part in ARRAYS) or not rows:
            return None
        data = np.memmap(path, np.uint8, "r").view(np.ndarray)  # mapped once: files that are open are few
        arrays = (data[layout[part][2] :][: 8 * rows].view(kind) for part, kind in ARRAYS.items())
        return Places(str(said["shards"]).split(" "), arrays, path)
    except (OSError, ValueError, KeyError, IndexError):
        return None


def flaw(path: Path, ids_of: Callable[[str], np.ndarray | None]) -> str:
    """What is wrong with a file, or nothing, held against the ids of shards, which are none of one that is gone."""
    run = read_places(path)
    for number, name in enumerate(run.names if run else ()):
        ids = ids_of(name)
        if run is None or ids is None:
            continue
        run.tell(name, number, len(ids))
        if (run.find(*halves(ids)) != (number << 32) + np.arange(len(ids))).any():
            run = None
            break
    return "" if run else f"{path} does not tell where rows are, which costs time; `gc` removes it"


def _sorted(high: np.ndarray, low: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    order = np.argsort(high, kind="stable")  # near linear where parts are sorted
    high, low, where = high[order], low[order], where[order]
    twins = np.flatnonzero(high[1:] == high[:-1])
    if len(twins):  # of which equal ones hardly ever come
        order = np.lexsort((np.arange(len(low)), low, high))
        high, low, where = high[order], low[order], where[order]
        last = np.append((high[1:] != high[:-1]) | (low[1:] != low[:-1]), True)
        high, low, where = high[last], low[last], where[last]
    return high, low, where
