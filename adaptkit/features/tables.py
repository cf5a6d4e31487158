"""Rows of features on disk, found by the content of what they were computed from.

A table is a folder named by the hash of its spec, the mapping that determines the bytes of a row::

    <root>/<sha256(canonical spec)[:32]>/
        spec.json                         written first, compared whenever the table is opened
        spec.copy.json                    the same, from which a lost one is written again
        shards/<sha256[:16]>.safetensors  ``ids`` uint8 ``(n, 16)`` and ``rows`` ``(n, *shape)``, with the hash of the
                                          spec as metadata ``table``; never modified
        log.jsonl                         one line per finished shard: its size, its sha256, what it cost
        .lock                             held by the one writer; readers take none
        .claims                           empty; its bytes are locked for rows that somebody is computing

A shard counts once its log line is complete, so a killed writer leaves at most a temporary file, an unlogged shard and
a torn line, which nobody reads. A shard is hashed when the table is first used, and again when its inode, size or time
stamps have changed; one that is not what the log says never yields a row.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from safetensors.numpy import save

from adaptkit.features import claims
from adaptkit.features.entries import ENTRY, DamagedShardWarning, is_entry
from adaptkit.io.files import (
    Tensors,
    atomic_write,
    canonical,
    digest,
    make_folder,
    naming,
    open_tensors,
    remove,
    sync_folder,
)
from adaptkit.io.jsons import parse_json
from adaptkit.io.logs import Log, lines
from adaptkit.io.paths import read_file

COPY = "spec.copy.json"
FORMAT = 2  # of the layout above; part of every spec
_Index = tuple[object, list[Tensors], np.ndarray, np.ndarray, np.ndarray]  # log, shards, their starts, ids, places
HEAL = "`adaptkit cache verify --repair` writes it again where it can, or remove the folder"
logger = logging.getLogger(__name__)


class StoredTable:
    """The rows of one spec, in `folder`. Made by `Store.table`; creates nothing on disk before rows are appended."""

    def __init__(self, root: Path, spec: Mapping[str, object]) -> None:
        self._text = canonical({"format": FORMAT, **spec})
        self.spec: dict[str, object] = parse_json(self._text)
        self.folder = root / digest(self._text)[:32]
        if self.spec["format"] != FORMAT:
            raise ValueError(f"format of {self.folder} must be {FORMAT}; got {self.spec['format']!r}; update adaptkit")
        if self.spec.get("dtype") not in ("float16", "float32"):
            raise ValueError(f"dtype of a spec must be one of float16, float32; got {self.spec.get('dtype')!r}")
        self._dtype = np.dtype(str(self.spec["dtype"]))
        self._shards, self._lock = self.folder / "shards", FileLock(self.folder / ".lock")
        self._log = Log(self.folder / "log.jsonl", *ENTRY, sound=is_entry)
        self._found: dict[str, Tensors | str] = {}  # by shard: it, or what was wrong with it when it was hashed
        self._index: _Index = None, [], np.zeros(1, int), np.empty(0, "S16"), np.empty(0, int)
        self._has_spec()

    def missing(self, ids: np.ndarray) -> np.ndarray:
        """Which of the uint8 ``(N, 16)`` ids are not stored, or only in damaged shards: bool ``(N,)``."""
        return self._find(ids)[-1] < 0

    def read(self, ids: np.ndarray) -> np.ndarray:
        """The rows of uint8 ``(N, 16)`` ids, ``(N, *shape)``, in the order asked; a ValueError if one is not stored."""
        shards, starts, where = self._find(ids)
        if absent := int((where < 0).sum()):
            raise ValueError(f"ids must be in {self.folder}; got {absent} that are not; append what `missing` reports")
        out = np.empty((len(ids), *(shards[0].layout["rows"][1][1:] if shards else ())), self._dtype)
        order = np.argsort(where, kind="stable")  # one visit to each shard, front to back
        cuts = np.searchsorted(where[order], starts)
        for i in np.flatnonzero(np.diff(cuts)):
            mine = order[cuts[i] : cuts[i + 1]]
            out[mine] = shards[i]["rows"][where[mine] - starts[i]]
        return out

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one writer: wait for the lock, read the log again, cut off the line that a killed writer left torn."""
        make_folder(self.folder)
        with naming(self.folder):
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                logger.info("waiting for the process that writes to %s", self.folder)
                self._lock.acquire(poll_interval=0.01)
        try:
            self._log.heal()
            yield
        finally:
            self._lock.release()

    def append(self, ids: np.ndarray, rows: np.ndarray, seconds: float) -> None:
        """Store rows as one shard, safe on disk when this returns; ids already stored are dropped.

        `ids`: uint8 ``(N, 16)``; `rows`: floating point ``(N, *shape)``, finite in the table's dtype; `seconds`: spent.
        """
        if not self._lock.is_locked:
            raise RuntimeError(f"append must be called inside `with table.writing()`; got no lock on {self.folder}")
        shards, _, where = self._find(ids)
        shape = (len(ids), *(shards[0].layout["rows"][1] if shards else rows.shape)[1:])
        if rows.shape != shape or rows.dtype.kind != "f" or 0 in shape[1:]:
            raise ValueError(f"rows of {self.folder} must be floating point {shape}; got {rows.dtype} {rows.shape}")
        with np.errstate(over="ignore"):  # the next test finds it
            rows = rows.astype(self._dtype, order="C")
        if not np.isfinite(rows).all():
            at = tuple(np.argwhere(~np.isfinite(rows))[0].tolist())
            todo = "use dtype float32" if self._dtype != np.float32 else "look at the towers' weights and precision"
            raise ValueError(f"rows must be finite as {self._dtype}; got {rows[at]} at {at}; {todo}")
        new = np.intersect1d(np.flatnonzero(where < 0), np.unique(_keys(ids), return_index=True)[1])
        if len(new) == 0:
            return
        if not self._has_spec():
            atomic_write(self.folder / COPY, self._text)
            atomic_write(self.folder / "spec.json", self._text)
            sync_folder(self.folder.parent)
        data = save({"ids": ids[new], "rows": rows[new]}, metadata={"table": self.folder.name})
        sha256, size = digest(data), {"rows": len(new), "shape": list(shape[1:]), "bytes": len(data)}
        atomic_write(self._shards / f"{sha256[:16]}.safetensors", data)  # replaces a damaged shard of the same content
        self._log.append({"shard": f"{sha256[:16]}.safetensors", **size, "sha256": sha256, "seconds": float(seconds)})

    def claim(self, ids: np.ndarray) -> np.ndarray:
        """Claim rows to compute them, until they are released or this process ends; which it got, bool ``(N,)``.

        It gets none that another has claimed, and none that is stored: look at those again.
        """
        make_folder(self.folder)
        with naming(self.folder):
            mine = claims.claim(self.folder / ".claims", ids)
        stored = ~self.missing(ids)  # only now: its owner stores a row before releasing it
        self.release(ids[mine & stored])
        return mine & ~stored

    def release(self, ids: np.ndarray) -> None:
        """Give up claims."""
        claims.release(self.folder / ".claims", ids)

    def refresh(self) -> None:
        """Read the log again if it has changed; every other method does this by itself."""
        self._log.refresh()

    @property
    def rows(self) -> int:
        """How many rows the log tells of."""
        return sum(entry["rows"] for entry in self._entries())

    @property
    def bytes(self) -> int:
        """How many bytes its shards have."""
        return sum(entry["bytes"] for entry in self._entries())

    @property
    def seconds(self) -> float:
        """What computing its rows took."""
        return sum(entry["seconds"] for entry in self._entries())

    def _entries(self) -> list[dict[str, Any]]:
        self._log.refresh()
        return list({entry["shard"]: entry for entry in self._log.records}.values())

    def _open(self, entry: Mapping[str, Any]) -> Tensors | str:
        """A shard, or what is wrong with it; one that was copied from another table is."""
        return open_tensors(self._shards, entry, table=self.folder.name)

    def _has_spec(self) -> bool:
        path = self.folder / "spec.json"
        if path.exists() and read_file(path) != self._text:
            raise ValueError(f"spec in {self.folder} must be {self._text.decode()}; got another; {HEAL}")
        return path.exists()

    def _specs(self) -> list[Path]:
        return [path for path in (self.folder / "spec.json", self.folder / COPY) if path.exists()]

    def flaws(self) -> list[str]:
        """Hash everything; one sentence, which names the file, for each thing wrong."""
        found = [self._open(entry) for entry in self._entries()]
        return self._log.flaws + [flaw for flaw in found if isinstance(flaw, str)]

    def gc(self, older_than_days: float | None) -> int:
        """Remove litter and damaged shards, or all when unused for so many days; returns bytes freed."""
        with self.writing():
            unused = older_than_days is not None and self._log.days() > older_than_days
            sound = [e for e in self._entries() if not unused and isinstance(self._open(e), Tensors)]
            if not unused and (sound != self._log.records or self._log.flaws):
                atomic_write(self._log.path, lines(sound))
            keep = {entry["shard"] for entry in sound}
            litter = [*self.folder.glob("*.tmp"), *(path for path in self._shards.glob("*") if path.name not in keep)]
            return remove(unused * [self._log.path] + litter + unused * self._specs())  # never .lock

    def _reindex(self) -> None:
        """Sort the ids of the shards that are what the log says; warn of the others."""
        shards = []
        for entry in self._entries():
            before = found = self._found.get(entry["shard"], "")
            if isinstance(before, str) or not before.unchanged():
                found = self._found[entry["shard"]] = self._open(entry)
            if isinstance(found, Tensors):
                shards.append(found)
            elif found != before:
                warnings.warn(f"{found}; its rows count as missing", DamagedShardWarning, stacklevel=4)
        _, known, _, keys, where = self._index
        if shards[: len(known)] != known:
            known, keys, where = [], keys[:0], where[:0]
        if new := shards[len(known) :]:
            keys = np.concatenate([keys, *(_keys(shard["ids"]) for shard in new)])
            where = np.concatenate([where, np.arange(len(where), len(keys))])
            order = np.argsort(keys, kind="stable")  # of equal ids the later stays later; near linear where sorted
            keys, where = keys[order], where[order]
        starts = np.cumsum([0] + [shard.layout["rows"][1][0] for shard in shards])
        self._index = self._log.records, shards, starts, keys, where

    def _find(self, ids: np.ndarray) -> tuple[list[Tensors], np.ndarray, np.ndarray]:
        """The sound shards, at which place the rows of each start, and the place of each id; -1 for none."""
        wanted = _keys(ids)
        self._log.refresh()
        if self._index[0] is not self._log.records:
            self._reindex()
        _, shards, starts, keys, where = self._index
        if not shards:
            return shards, starts, np.full(len(ids), -1)
        at = np.searchsorted(keys, wanted, side="right") - 1  # an id before all gets the last one, which is another
        where = np.where(keys[at] == wanted, where[at], -1)
        touched = np.unique(np.searchsorted(starts, where[where >= 0], side="right") - 1)
        if all(shards[i].unchanged() for i in touched):
            return shards, starts, where
        self._index = None, *self._index[1:]
        return self._find(ids)


def _keys(ids: np.ndarray) -> np.ndarray:
    """Ids as S16 ``(N,)``, which numpy can sort."""
    if ids.dtype != np.uint8 or ids.shape != (len(ids), 16):
        raise ValueError(f"ids must be uint8 (N, 16); got {ids.dtype} {ids.shape}")
    return np.ascontiguousarray(ids).view("S16")[:, 0]
