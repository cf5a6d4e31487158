"""Files that are written whole or not at all, and read only when they are what they were.

A file is written under a temporary name in the same folder, flushed to the disk and renamed, and the folder is flushed
too: a reader sees the old file or the new one, whatever kills the writer. Only a `Log` is ever changed: it grows.
"""

import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from adaptkit.io.jsons import parse_json
from adaptkit.io.paths import regular, resolved

DTYPES: dict[str, np.dtype] = {"U8": np.dtype("u1"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4")}  # allowed
MAX_HEADER = 100_000_000  # bytes, the limit of the safetensors library itself

CANNOT = "cannot write"
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # what a file system without locks says
CHOOSE = "--out, or by --home or ADAPTKIT_HOME where features and results live"

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


@contextmanager
def naming(folder: Path, choose: str = CHOOSE) -> Iterator[None]:
    """Make an OSError of writing, a full disk above all, say which folder, and by which option to choose another."""
    try:
        yield
    except OSError as error:
        if str(error.strerror).startswith(CANNOT):
            raise
        if error.errno in NO_LOCKS:
            message = f"{CANNOT}: {error.strerror}; it must lie on a file system with locks; choose another by {choose}"
            raise OSError(error.errno, message, str(folder)) from error
        message = f"{CANNOT}: {error.strerror}; free some space or choose another folder by {choose}"
        raise OSError(error.errno, message, str(folder)) from error


def make_folder(folder: Path, choose: str = CHOOSE) -> None:
    """Make a folder, with those above it, unless it is there; an OSError names it."""
    with naming(folder, choose):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(error.errno, "a file lies there") from error


def ensure_writable(folder: Path) -> None:
    """Fail now, and not once the work is done, where a folder cannot be made or written to; nothing stays behind.

    Raises:
        OSError: naming the folder.
    """
    folder = folder.absolute()
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    probe = folder / f".{secrets.token_hex(4)}.tmp"  # of its own: others may ask at the same time
    try:
        atomic_write(probe, b"")
        probe.unlink()
    finally:
        with suppress(OSError):  # somebody else uses one by now
            for path in made:
                path.rmdir()


def ensure_file(path: Path) -> None:
    """Fail now, and not once the work is done, where a file cannot be written: its folder cannot, or a folder is there.

    Raises:
        OSError: naming the folder.
    """
    refuse_folder(path)
    ensure_writable(path.parent)


def refuse_folder(path: Path) -> None:
    """An OSError that names the path, where it is that of a folder."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"{CANNOT} to a folder; it must be the path of a file", str(path))


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, so that a rename outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file whole or not at all, in the place of an older one; its folder is made, and an OSError names it.

    What a link leads to is replaced, not the link; a device or a pipe is written to. Parts are written as they come.
    """
    parts = [data] if isinstance(data, bytes) else data
    refuse_folder(path)
    path = resolved(path)
    temp = path.with_name(f"{path.name[:200]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")  # mkstemp ignores the umask
    make_folder(path.parent)
    with naming(path.parent):
        if signature(path) and not path.is_file():  # of links that lead in a circle, an error
            write_through(path, parts)
            return
        try:
            with open(temp, "xb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, path)
        finally:
            with suppress(OSError):
                temp.unlink()  # there only after a failure
        sync_folder(path.parent)


def write_through(path: Path, parts: Iterable[bytes]) -> None:
    """Write to a device, or to a pipe that somebody reads from; a folder, and a pipe without reader, is an OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)  # or it would wait for a reader
    os.set_blocking(descriptor, True)
    with open(descriptor, "wb") as file:
        file.writelines(parts)


def remove(paths: Iterable[Path]) -> int:
    """Remove files; returns bytes freed."""
    freed = 0
    for path in paths:
        freed += path.stat().st_size
        path.unlink()
    return freed


@dataclass(frozen=True, eq=False)
class Tensors:
    """The tensors of a safetensors file, mapped only while they are read: open files stay few, a change is noticed."""

    path: Path
    layout: Layout
    seen: Signature | None
    about: dict[str, str] = field(default_factory=dict)  # what its metadata says

    def unchanged(self) -> bool:
        """Whether the file is still the one that was opened."""
        try:
            return signature(self.path) == self.seen
        except OSError:
            return False

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, shape, offset = self.layout[name]
        return np.memmap(self.path, dtype, "r", offset, shape)


def open_tensors(folder: Path, entry: Mapping[str, Any], *, hashed: bool = True, **about: str) -> Tensors | str:
    """The safetensors file that a log entry (`shard`, `bytes`, `sha256`) tells of, or what is wrong with it.

    Args:
        folder: where it lies.
        entry: of the log.
        hashed: hold the whole file against its sha256; else its size and header alone.
        about: what its metadata must say.
    """
    path = folder / entry["shard"]
    try:
        with open(regular(path, "a shard", 2**62), "rb") as file:
            seen, size = signature(file.fileno()), os.fstat(file.fileno()).st_size
            if size != entry["bytes"]:
                return f"{path} must have {entry['bytes']} bytes; got {size}"
            if hashed and (found := hashlib.file_digest(file, "sha256").hexdigest()) != entry["sha256"]:
                return f"{path} must have sha256 {entry['sha256']}; got {found}"
            layout, said = safetensors_layout(file, size)
            for name, value in about.items():
                if said.get(name) != value:
                    return f"{path} must be of {name} {value}; got {said.get(name) or 'none'}"
            return Tensors(path, layout, seen, said)
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
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
        header = parse_json(file.read(length))
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
