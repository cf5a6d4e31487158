"""Rows of features on disk, found by the content of what they were computed from.

A table is a folder named by the hash of its spec, the mapping that determines the bytes of a row::

    <root>/<sha256(canonical spec)[:32]>/
        spec.json                         written first, compared whenever the table is opened
        spec.copy.json                    the same, from which a lost one is written again
        shards/<sha256[:16]>.safetensors  ``ids`` uint8 ``(n, 16)`` and ``rows`` ``(n, *shape)``, with the hash of the
                                          spec as metadata ``table``; never modified. A merged one is sorted by id and
                                          has ``sums`` uint8 ``(n, 8)``, of table, id and row; the ids' is ``seal``
        log.jsonl                         one line per finished shard: its size, its sha256, what it cost, and of a
                                          merged one the shards that it replaces
        index/*.safetensors               where rows of many large shards are; derived, never trusted
        .lock                             held by the one writer; readers take none
        .claims                           empty; its bytes are locked for rows that somebody is computing

A shard counts once its log line is complete, so a killed writer leaves at most a temporary file, an unlogged shard and
a torn line, which nobody reads. A small shard is hashed when its rows are first used, and again when its inode, size or
time stamps have changed; of a merged one each row is held against its sum. What is not what it was never yields a row.

An append costs what it appends: the log is read on from where it was read to, and shards are merged, eight of a size to
one, so that a row is written again a few times at most.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from adaptkit.features import claims
from adaptkit.features.contents import Contents
from adaptkit.features.entries import CAP, MERGED
from adaptkit.features.merging import merge, short, tidy
from adaptkit.features.shards import packed, sorted_pieces
from adaptkit.io.files import atomic_write, canonical, digest, make_folder, naming, remove, sync_folder
from adaptkit.io.jsons import parse_json
from adaptkit.io.logs import lines
from adaptkit.io.paths import read_file

COPY = "spec.copy.json"
FORMAT = 2  # of the layout above; part of every spec
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
        self._lock = FileLock(self.folder / ".lock")
        self._contents = Contents(self.folder, self._dtype)
        self._log, self._tidying = self._contents.log, True
        self._has_spec()

    def missing(self, ids: np.ndarray) -> np.ndarray:
        """Which of the uint8 ``(N, 16)`` ids are not stored, or only in damaged shards: bool ``(N,)``."""
        return ~self._contents.find(ids)

    def read(self, ids: np.ndarray) -> np.ndarray:
        """The rows of uint8 ``(N, 16)`` ids, ``(N, *shape)``, in the order asked; a ValueError if one is not stored."""
        self._contents.refresh()
        shape = self._contents.shape or []
        out = np.empty((len(ids), math.prod(shape) * self._dtype.itemsize), np.uint8)
        if absent := int((~self._contents.find(ids, out)).sum()):
            raise ValueError(f"ids must be in {self.folder}; got {absent} that are not; append what `missing` reports")
        return out.view(self._dtype).reshape(len(ids), *shape)

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
        stored, known = self._contents.find(ids), self._contents.shape
        shape = (len(ids), *(rows.shape[1:] if known is None else known))
        if rows.shape != shape or rows.dtype.kind != "f" or 0 in shape[1:]:
            raise ValueError(f"rows of {self.folder} must be floating point {shape}; got {rows.dtype} {rows.shape}")
        with np.errstate(over="ignore"):  # the next test finds it
            rows = rows.astype(self._dtype, order="C")
        if not np.isfinite(rows).all():
            at = tuple(np.argwhere(~np.isfinite(rows))[0].tolist())
            todo = "use dtype float32" if self._dtype != np.float32 else "look at the towers' weights and precision"
            raise ValueError(f"rows must be finite as {self._dtype}; got {rows[at]} at {at}; {todo}")
        new = np.intersect1d(np.flatnonzero(~stored), np.unique(ids, axis=0, return_index=True)[1])
        if len(new) == 0:
            return
        if not self._has_spec():
            atomic_write(self.folder / COPY, self._text)
            atomic_write(self.folder / "spec.json", self._text)
            sync_folder(self.folder.parent)
        self._tidy(self._write(ids[new], rows[new], float(seconds)))

    def _write(self, ids: np.ndarray, rows: np.ndarray, seconds: float) -> int:
        """Write shards, and their lines; how many."""
        large = rows.nbytes + ids.nbytes >= CAP // 2  # then it is as if merged
        name, entries = self.folder.name, list[dict[str, Any]]()
        for entry, data in sorted_pieces(name, ids, rows) if large else [packed(name, ids, rows)]:
            atomic_write(self._contents.folder / entry["shard"], data)  # replaces a damaged shard of the same content
            entry |= {"seconds": seconds * (entry["rows"] / len(ids))}
            entries.append({**entry, MERGED: []} if large else entry)
        self._log.append(*entries)
        return len(entries)

    def _tidy(self, steps: int) -> None:
        """A step for each shard that was written; rows are stored by now: where it cannot write, others will."""
        try:
            while self._tidying and steps and tidy(self._contents):
                steps -= 1
        except OSError as error:
            self._tidying = False
            logger.info("shards of %s stay as they are: %s", self.folder, error)

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
        """Read the log on if it has grown; every other method does this by itself."""
        self._log.refresh()

    @property
    def rows(self) -> int:
        """How many rows the log tells of."""
        return self._contents.told().rows

    @property
    def bytes(self) -> int:
        """How many bytes its shards have."""
        return self._contents.told().bytes

    @property
    def seconds(self) -> float:
        """What computing its rows took."""
        return self._contents.told().seconds

    def _entries(self) -> list[dict[str, Any]]:
        return list(self._contents.told().live.values())

    def _has_spec(self) -> bool:
        path = self.folder / "spec.json"
        if path.exists() and read_file(path) != self._text:
            raise ValueError(f"spec in {self.folder} must be {self._text.decode()}; got another; {HEAL}")
        return path.exists()

    def _specs(self) -> list[Path]:
        return [path for path in (self.folder / "spec.json", self.folder / COPY) if path.exists()]

    def flaws(self) -> list[str]:
        """Hash everything; one sentence, which names the file, for each thing wrong."""
        live = self._contents.told().live
        found = [self._contents.shard(entry).open(whole=True) for entry in live.values()]
        return self._log.flaws + [flaw for flaw in [*found, *self._contents.index_flaws().values()] if flaw]

    def gc(self, older_than_days: float | None) -> int:
        """Remove litter and damaged shards, or all when unused for so many days; returns bytes freed.

        Of a damaged shard with sums the rows that are sound are kept, in another.
        """
        with self.writing():
            unused = older_than_days is not None and self._log.days() > older_than_days
            contents, live = self._contents, dict(self._contents.told().live)
            bad = [] if unused else [name for name, entry in live.items() if contents.shard(entry).open(whole=True)]
            saved = [entry for name in bad if MERGED in live[name] for entry in merge(contents, [name])[0]]
            bad = [name for name in bad if contents.shard(live[name]).open(whole=True)]
            kept = {} if unused else {n: entry for n, entry in contents.told().live.items() if n not in bad}
            if not unused and (short(kept.values()) != self._log.records or self._log.flaws):
                atomic_write(self._log.path, lines(short(kept.values())))
            litter = [*self.folder.glob("*.tmp"), *(p for p in contents.folder.glob("*") if p.name not in kept)]
            if unused:
                return remove([self._log.path, *litter, *contents.index.glob("*"), *self._specs()])  # never .lock
            contents.refresh()
            useful = {run.path for run in contents.runs} - {
                path for path, said in contents.index_flaws().items() if said
            }
            litter += [path for path in contents.index.glob("*") if path not in useful]
            return remove(litter) - sum(entry["bytes"] for entry in saved)
