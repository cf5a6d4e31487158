"""One shard: how it is written, and its rows read, each held against its sum.

There are two kinds. What is appended is small: ``ids`` and ``rows``, hashed whole when it is first used. What others
were merged into, or what was large at once, is sorted by id and has ``sums`` too, of id and row: its rows are held
against them when they are first read, and a damaged one costs itself alone.
"""

import hashlib
import io
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from adaptkit.features.entries import CAP, MERGED, ShardLine
from adaptkit.io.files import Layout, Tensors, digest, open_tensors, safetensors_layout, signature
from adaptkit.io.paths import read_file

PIECE = 4 * 2**20  # bytes that are looked at at once
HEAD = 1024  # bytes, more than the head of a shard has
SPARSE = 4  # rows are read one by one where others lie between, more than so many for each


def halves(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Uint8 ``(N, 16)`` ids as two uint64 ``(N,)``, which sort as the ids do."""
    if ids.dtype != np.uint8 or ids.shape != (len(ids), 16):
        raise ValueError(f"ids must be uint8 (N, 16); got {ids.dtype} {ids.shape}")
    both = np.ascontiguousarray(ids).view(">u8").astype("u8")
    return both[:, 0], both[:, 1]


def row_sums(table: str, ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of rows, uint8 ``(N, W)``: the first 8 bytes of the sha256 of table, id and row, ``(N, 8)``."""
    found, step = [], max(1, PIECE // (32 + rows.shape[1]))
    name = np.frombuffer(bytes.fromhex(table), np.uint8)
    for i in range(0, len(ids), step):
        some = slice(i, i + step)
        what = np.concatenate([np.broadcast_to(name, (len(ids[some]), len(name))), ids[some], rows[some]], 1)
        flat, width = memoryview(what.tobytes()), what.shape[1]
        found += [hashlib.sha256(flat[at : at + width]).digest()[:8] for at in range(0, len(flat), width)]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 8)


def bare(rows: np.ndarray) -> np.ndarray:
    """Rows as their bytes, uint8 ``(N, W)``."""
    return np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)


def packed(table: str, ids: np.ndarray, rows: np.ndarray, sealed: np.ndarray | None = None) -> tuple[ShardLine, bytes]:
    """What a log says of a shard but the seconds, and its bytes; `sealed` are the sums of one that has some."""
    held = {"ids": ids, "rows": rows}
    if sealed is not None:
        held |= {"sums": sealed, "seal": _seal(ids)}
    data = save(held, metadata={"table": table})
    sha256 = digest(data)
    size = {"rows": len(ids), "shape": list(rows.shape[1:]), "bytes": len(data)}
    return {"shard": f"{sha256[:16]}.safetensors", **size, "sha256": sha256}, data


def sorted_pieces(
    table: str, ids: np.ndarray, rows: np.ndarray, sealed: np.ndarray | None = None
) -> Iterator[tuple[ShardLine, bytes]]:
    """Shards with sums of at most `CAP` bytes, sorted by id; of equal ids the last one."""
    order = np.lexsort(halves(ids)[::-1])
    last = np.append((ids[order[1:]] != ids[order[:-1]]).any(1), True)
    order = order[last]
    width = bare(rows[:1]).shape[1]
    for part in np.array_split(order, min(len(order), -(-len(order) * (width + 24) // CAP))):
        own = row_sums(table, ids[part], bare(rows[part])) if sealed is None else sealed[part]
        yield packed(table, ids[part], rows[part], own)


class Shard:
    """A shard as far as this process has looked at it.

    Attributes:
        entry: what the log says.
        flaw: a sentence, once it is found to be damaged.
        bad: rows that are not what was written.
    """

    def __init__(self, folder: Path, entry: ShardLine, dtype: np.dtype) -> None:
        self.folder, self.entry, self.path, self.dtype = folder, entry, folder / entry["shard"], dtype
        self.flaw, self.bad = "", np.zeros(0, int)
        self._file = str(self.path)  # a Path takes longer to open
        self.width = dtype.itemsize * math.prod(entry["shape"])
        self._opened: Tensors | None = None
        self._sound = np.zeros(0, bool)  # rows that were held against their sums, of a shard with some

    @property
    def summed(self) -> bool:
        """Whether each row has a sum."""
        return MERGED in self.entry

    def open(self, whole: bool = False) -> str:
        """Look at its header, and hash it where rows have no sums or if `whole`; what is wrong with it, or nothing."""
        table = self.folder.parent.name
        found = open_tensors(self.folder, self.entry, hashed=whole or not self.summed, table=table)
        self.flaw = found if isinstance(found, str) else self._odd(found.layout)
        self._opened = None if isinstance(found, str) or self.flaw else found
        self._sound = np.zeros(0 if self.flaw else self.entry["rows"] * self.summed, bool)
        return self.flaw

    def ids(self) -> tuple[np.ndarray | None, bool]:
        """Its ids, ``(N, 16)``, and whether they are what was written: of those without sums it is known.

        None where it is gone since it was opened, as the writer has merged it.
        """
        if self._opened is None:
            return None, False
        with suppress(OSError, ValueError):
            ids = np.array(self._opened["ids"])
            return ids, not self.summed or bool((self._opened["seal"] == _seal(ids)).all())
        return None, False

    def unknown(self, at: np.ndarray) -> np.ndarray:
        """Which of some rows are still to be read to be believed, bool."""
        if not self.summed or self._opened is None:
            return np.full(len(at), self._opened is None)
        return ~self._sound[at]

    def unchanged(self) -> bool:
        """Whether it was opened, and is what it was then."""
        return self._opened is not None and self._opened.unchanged()

    def read(self, at: np.ndarray, rows: np.ndarray, sealed: np.ndarray) -> np.ndarray | None:
        """Read rows, and their sums if any is `unknown`: which are; None if the file is not what it was.

        Args:
            at: of the rows, ascending.
            rows: gets their bytes, uint8 ``(N, W)``.
            sealed: gets the sums, uint8 ``(N, 8)``.
        """
        if self._opened is None and not self.summed and self.open():
            return None
        with suppress(OSError, ValueError):  # a ValueError where it was cut meanwhile
            descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if self._opened is None:
                    self._glance(descriptor)
                if self._opened is None or signature(descriptor) != self._opened.seen:
                    return None
                self._fetch(descriptor, "rows", at, rows)
                if (unknown := self.unknown(at)).any():
                    self._fetch(descriptor, "sums", at, sealed)
                return unknown
            finally:
                os.close(descriptor)
        return None

    def _glance(self, descriptor: int) -> None:
        """Open one whose rows have sums by the head alone, which is soon done as most heads are the same."""
        head = os.pread(descriptor, HEAD, 0)
        layout, about = _parsed(head[: 8 + int.from_bytes(head[:8], "little")], self.entry["bytes"])
        seen = signature(descriptor)
        if seen and seen[1] == self.entry["bytes"] and about == {"table": self.folder.parent.name}:
            self.flaw = self._odd(layout)
            self._opened = None if self.flaw else Tensors(self.path, layout, seen, about)
            self._sound = np.zeros(0 if self.flaw else self.entry["rows"], bool)

    def trust(self, at: np.ndarray) -> None:
        """Some rows were held against their sums."""
        if self.summed:
            self._sound[at] = True

    def has(self, at: int, name: np.ndarray) -> bool:
        """Whether the id of a row is as expected, as it lies there now."""
        with suppress(OSError, ValueError):
            return self._opened is not None and bool((self._opened["ids"][at] == name).all())
        return False

    def contents(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Ids, rows and sums of all rows that are sound, read once; None if there are none, or it cannot be read."""
        table = self.folder.parent.name
        with suppress(OSError, ValueError):
            data = read_file(self.path)
            layout, about = safetensors_layout(io.BytesIO(data), len(data))
            whole = digest(data) == self.entry["sha256"]
            if self._odd(layout) or about.get("table") != table or not (whole or self.summed):
                return None
            ids, rows, *sealed = (_view(data, layout, name) for name in ("ids", "rows", "sums")[: 2 + self.summed])
            made = row_sums(table, ids, bare(rows)) if not (whole and sealed) else sealed[0]
            good = np.ones(len(ids), bool) if whole else (made == sealed[0]).all(1)
            return (ids[good], rows[good], made[good]) if good.any() else None
        return None

    def _fetch(self, descriptor: int, name: str, at: np.ndarray, out: np.ndarray) -> None:
        """Some rows of a tensor, ``(N, width)``."""
        width, start = out.shape[1], self._opened.layout[name][2] if self._opened else 0
        first, step = int(at[0]), len(at)
        if (span := int(at[-1]) - first + 1) > SPARSE * len(at):
            data = b"".join([os.pread(descriptor, width, start + i * width) for i in at.tolist()])
            out[:] = np.frombuffer(data, np.uint8).reshape(step, width)
        else:
            data = os.pread(descriptor, span * width, start + first * width)
            out[:] = np.frombuffer(data, np.uint8).reshape(span, width)[at - first]

    def _odd(self, layout: Layout) -> str:
        rows, shape = self.entry["rows"], self.entry["shape"]
        wanted: dict[str, tuple[Any, ...]] = {"ids": ("u1", (rows, 16)), "rows": (self.dtype, (rows, *shape))}
        wanted |= {"sums": ("u1", (rows, 8)), "seal": ("u1", (32,))} if self.summed else {}
        for name, (dtype, size) in wanted.items():
            if name not in layout or layout[name][:2] != (np.dtype(dtype), size):
                return f"{self.path} must hold {name} of {np.dtype(dtype)} {size}; got {_shown(layout, name)}"
        return ""


def _seal(ids: np.ndarray) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(ids.tobytes()).digest(), np.uint8)


@lru_cache(100)
def _parsed(head: bytes, size: int) -> tuple[Layout, dict[str, str]]:
    return safetensors_layout(io.BytesIO(head), size)


def _view(data: bytes, layout: Layout, name: str) -> np.ndarray:
    dtype, shape, start = layout[name]
    return np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape)


def _shown(layout: Mapping[str, tuple[Any, ...]], name: str) -> str:
    return f"{layout[name][0]} {layout[name][1]}" if name in layout else "none"
