"""Archives of strangers: what is wanted of one, put in its place whole or not at all.

Nothing leaves the folder, nothing that is there is touched, links and devices are left out, and no more comes out than
the archive may hold.
"""

from __future__ import annotations

import errno
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from adaptkit.io.downloads import BY_ROOT
from adaptkit.io.files import make_folder, naming, sync_folder

BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError)
Opens = Callable[[], IO[bytes]]
SWELL = 4  # a dataset is at most so many times its archive: pictures hardly compress, text does
TINY = 1 << 20  # bytes that any archive may hold


def unpack(archive: Path, into: Path, wanted: Mapping[str, str], most: int | None = None) -> list[Path]:
    """Put files or folders of an archive in their places, each by one rename once all are out.

    Args:
        archive: tar, with any compression, or zip.
        into: the folder that the places are in.
        wanted: places by what goes there: ``{"dtd/images": "images"}``. A place that is there already stays as it is.
        most: bytes that may come out; default four times the archive, or a megabyte.

    Returns:
        The places that were made.

    Raises:
        ValueError: when the archive is damaged, has a name that leads outside, holds too much or lacks what is wanted.
        OSError: when the disk cannot take it.
    """
    wanted = {name: place for name, place in wanted.items() if not (into / place).exists()}
    if not wanted:
        return []
    room = max(TINY, SWELL * archive.stat().st_size) if most is None else most
    temp = into / f".{archive.name}.unpacking"
    make_folder(into, BY_ROOT)
    with naming(into, BY_ROOT):
        shutil.rmtree(temp, ignore_errors=True)  # of one that was killed
        try:
            _write(archive, temp, tuple(wanted), room)
            if absent := [name for name in wanted if not (temp / name).exists()]:
                raise ValueError(f"{archive} must hold {absent[0]!r}; got {_tops(archive)}")
            for name, place in wanted.items():
                (into / place).parent.mkdir(parents=True, exist_ok=True)
                (temp / name).rename(into / place)
            sync_folder(into)
        finally:
            shutil.rmtree(temp, ignore_errors=True)
    return [into / place for place in wanted.values()]


def _write(archive: Path, temp: Path, wanted: tuple[str, ...], room: int) -> None:
    """Write the wanted members below a folder."""
    took = 0
    with _told(archive):
        for name, size, file in _members(archive):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:|.*\\\\", name):
                raise ValueError(f"{archive} must hold files inside its folder alone; got {name!r}; it is not unpacked")
            if not any(path.is_relative_to(prefix) for prefix in wanted):
                continue
            took += size
            if took > room:
                raise ValueError(f"{archive} must hold at most {room:,} bytes of what is wanted; got more")
            with _fitting(archive, name):
                target = temp / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with file() as source, open(target, "wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)


@contextmanager
def _fitting(archive: Path, name: str) -> Iterator[None]:
    """A name that no file can have beside the others is the archive's fault, and not the disk's."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
            raise
        raise ValueError(f"{archive} must hold what a folder can; got {name:.80}: {error.strerror}") from error


@contextmanager
def _told(archive: Path) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise ValueError(f"{archive} must be a whole archive; got one that is not ({error}); get it again") from error


def _members(archive: Path) -> Iterator[tuple[str, int, Opens]]:
    """Regular files of an archive: name, bytes, and what opens it."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as pack:
            for info in pack.infolist():
                if not info.is_dir() and stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG):
                    yield info.filename, info.file_size, partial(pack.open, info)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isreg():
                yield member.name, member.size, partial(_of, tar, member)


def _of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    if file is None:
        raise EOFError(f"no bytes of {member.name!r}")
    return file


def _tops(archive: Path) -> str:
    """The folders and files that an archive has, as far in as a wanted one would be; the first ten."""
    tops = dict.fromkeys("/".join(PurePosixPath(name).parts[:2]) for name, _, _ in _members(archive))
    return ", ".join([*tops][:10]) or "nothing"
