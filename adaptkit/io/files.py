"""Files that are written whole or not at all, and read only when they are what they were.

A file is written under a temporary name in the same folder, flushed to the disk and renamed, and the folder is flushed
too: a reader sees the old file or the new one, whatever kills the writer. Only a `Log` is ever changed: it grows.
"""

import hashlib
import json
import math
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

DTYPES: dict[str, np.dtype] = {"U8": np.dtype("u1"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4")}  # allowed
NO_FILES = (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket")
MAX_HEADER = 100_000_000  # bytes, the limit of the safetensors library itself

Layout = dict[str, tuple[np.dtype, tuple[int, ...], int]]  # by tensor: dtype, shape, and where in the file
Signature = tuple[int, int, int, int]  # inode, size, mtime and ctime in nanoseconds


def digest(data: bytes) -> str:
    """Sha256 of the data, in hex."""
    return hashlib.sha256(data).hexdigest()


def canonical(obj: object) -> bytes:
    """JSON that is the same bytes for equal values: sorted keys, no spaces, ASCII; a ValueError without a JSON form."""
    try:
        return json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"value must be JSON with finite numbers; got {obj!r} ({error})") from error


def signature(path: Path | str | int) -> Signature | None:
    """What changes when a file changes, or None where there is no file."""
    try:
        now = os.stat(path)
    except FileNotFoundError:
        return None
    return now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


def regular(path: Path, what: str, most: int = 2**31) -> Path:
    """The path; where something lies there it must be a regular file, as reading a pipe or device may never end.

    Args:
        path: that is about to be read; one where nothing lies is left to the reader.
        what: it is, e.g. ``a recipe``.
        most: bytes that it may have.

    Raises:
        ValueError: when it is a folder, a pipe, a socket, a device or too large.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return path
    if not stat.S_ISREG(found.st_mode):
        got = next((name for test, name in NO_FILES if test(found.st_mode)), "a device")
        raise ValueError(f"{what} must be a regular file; got {str(path)!r}, {got}; give the path of a file")
    if found.st_size > most:
        raise ValueError(f"{what} must have at most {most} bytes; got {str(path)!r} of {found.st_size}")
    return path


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Make an OSError of writing, a full disk above all, say which folder."""
    try:
        yield
    except OSError as error:
        message = f"cannot write: {error.strerror}; free some space or choose another folder"
        raise OSError(error.errno, message, str(folder)) from error


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, so that a rename outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, in the place of an older one; an OSError names the folder."""
    temp = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")  # mkstemp would ignore the umask
    with naming(path.parent):
        try:
            with open(temp, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, path)
        finally:
            with suppress(OSError):
                temp.unlink()  # there only after a failure
        sync_folder(path.parent)


def remove(paths: Iterable[Path]) -> int:
    """Remove files; returns bytes freed."""
    freed = 0
    for path in paths:
        freed += path.stat().st_size
        path.unlink()
    return freed


class Log:
    """A file of JSON lines, one mapping of `fields` each, which grows by flushed lines; half a line does not count.

    Any number of processes may read while one, which holds a lock of its own, writes.
    """

    def __init__(self, path: Path, *fields: str) -> None:
        self.path, self._fields = path, set(fields)
        self.records: list[dict[str, Any]] = []  # what the complete lines say
        self.flaws: list[str] = []  # a sentence for each line that says nothing
        self._seen: Signature | None = None
        self._end = 0  # of the last complete line

    def refresh(self) -> None:
        """Read the file again if it has changed."""
        if (now := signature(self.path)) != self._seen:
            self._read(now)

    def heal(self) -> None:
        """Read the file again, and cut off the line that a killed writer left torn."""
        self._read(signature(self.path))
        if self._seen is not None and self._seen[1] > self._end:
            self.append()

    def append(self, *records: dict[str, Any]) -> None:
        """Add lines after the last complete one."""
        with naming(self.path.parent), open(self.path, "ab") as file:
            file.truncate(self._end)
            file.write(lines(records))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.path.parent)

    def days(self) -> float:
        """Days since the file was written, 0 without a file."""
        return (time.time() - self._seen[2] / 1e9) / 86400 if self._seen else 0.0

    def _read(self, now: Signature | None) -> None:
        *whole, torn = self.path.read_bytes().split(b"\n") if now else [b""]
        self._seen, self._end = now, sum(len(line) + 1 for line in whole)
        self.records, self.flaws = [], [f"{self.path}: the last line is torn; the next writer cuts it off"] * bool(torn)
        for number, line in enumerate(whole, 1):
            record = None
            with suppress(ValueError):
                record = json.loads(line)
            if isinstance(record, dict) and record.keys() == self._fields:
                self.records.append(record)
            else:
                self.flaws.append(f"{self.path}: line {number} is not a record; `gc` removes it")


def lines(records: Iterable[object]) -> bytes:
    """The text of a log."""
    return b"".join(canonical(record) + b"\n" for record in records)


@dataclass(frozen=True, eq=False)
class Tensors:
    """The tensors of a safetensors file, mapped only while they are read: open files stay few, a change is noticed."""

    path: Path
    layout: Layout
    seen: Signature | None

    def unchanged(self) -> bool:
        """Whether the file is still the one that was opened."""
        return signature(self.path) == self.seen

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, shape, offset = self.layout[name]
        return np.memmap(self.path, dtype, "r", offset, shape)


def open_tensors(folder: Path, entry: Mapping[str, Any], **about: str) -> Tensors | str:
    """The safetensors file that a log entry (`shard`, `bytes`, `sha256`) tells of, or what is wrong with it.

    Args:
        folder: where it lies.
        entry: of the log.
        about: what its metadata must say.
    """
    path = folder / entry["shard"]
    try:
        with open(path, "rb") as file:
            seen, size = signature(file.fileno()), os.fstat(file.fileno()).st_size
            if size != entry["bytes"]:
                return f"{path} must have {entry['bytes']} bytes; got {size}"
            if (found := hashlib.file_digest(file, "sha256").hexdigest()) != entry["sha256"]:
                return f"{path} must have sha256 {entry['sha256']}; got {found}"
            layout, said = safetensors_layout(file, size)
            for name, value in about.items():
                if said.get(name) != value:
                    return f"{path} must be of {name} {value}; got {said.get(name) or 'none'}"
            return Tensors(path, layout, seen)
    except FileNotFoundError:
        return f"{path} is missing"
    except ValueError as error:
        return f"{path} {error}"


def safetensors_layout(file: BinaryIO, size: int) -> tuple[Layout, dict[str, str]]:
    """Dtype, shape and place of each tensor in a safetensors file of ``size`` bytes, and what its metadata says.

    Raises:
        ValueError: if the tensors cannot be where the header says.
    """
    file.seek(0)
    length, limit = int.from_bytes(file.read(8), "little"), min(MAX_HEADER, size - 8)
    if length > limit:
        raise ValueError(f"must have a header of at most {limit} bytes; got {length}")
    layout: Layout = {}
    try:
        header = json.loads(file.read(length))
        said = dict(header.pop("__metadata__", {}))
        for name, tensor in header.items():
            dtype, shape, (start, end) = DTYPES[tensor["dtype"]], tuple(tensor["shape"]), tensor["data_offsets"]
            filled = end - start == math.prod(shape) * dtype.itemsize and all(n >= 0 for n in shape)
            if not (filled and 0 <= start <= end <= size - 8 - length):
                raise ValueError(f"must hold {name!r} inside the file; got {tensor}")
            layout[name] = dtype, shape, 8 + length + start
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"must hold tensors of dtype {', '.join(DTYPES)}; got {error!r}") from error
    return layout, said
