"""Paths that people and files write: followed, expanded and read without surprises."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

NO_FILES = (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket")


def resolved(path: Path | str) -> Path:
    """The absolute path without links; of links that lead in a circle, one that does not exist."""
    return Path(os.path.realpath(path))  # Path.resolve raises a RuntimeError


def expanded(path: Path | str) -> Path:
    """The path with the home folder in the place of ``~``; the name of nobody stays as it is."""
    return Path(os.path.expanduser(path))


def in_file_system(path: Path, what: str) -> Path:
    """The path, unless it is the address of something else, which would become a folder called ``s3:``.

    Raises:
        ValueError: for an address, with what to do.
    """
    if address := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(path)):
        raise ValueError(
            f"{what} must be a folder of a file system, as files there are locked and renamed; got "
            f"{str(path)!r}, an address by {address[1]}; give a folder, and copy it there afterwards"
        )
    return path


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


def read_file(path: Path | str) -> bytes:
    """The bytes of a file of any size.

    Raises:
        OSError: when it cannot be read.
        ValueError: as `regular`.
    """
    return regular(Path(path), "what is read", 2**62).read_bytes()


def read_text(path: Path | str) -> str:
    """The text of a file, without the mark that some editors put first.

    Raises:
        OSError: when it cannot be read.
        ValueError: as `regular`, and for bytes that are not UTF-8.
    """
    try:
        return read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"a file of text must be UTF-8; got {str(path)!r}: {error}; save it again as UTF-8") from None
