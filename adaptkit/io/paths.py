"""Paths that people and files write: followed, expanded and read without surprises."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def resolved(path: Path | str) -> Path:
    """The absolute path without links; of links that lead in a circle, one that does not exist."""
    return Path(os.path.realpath(path))  # Path.resolve raises a RuntimeError


def expanded(path: Path | str) -> Path:
    """The path with the home folder in the place of ``~``; the name of nobody stays as it is."""
    return Path(os.path.expanduser(path))


def read_file(path: Path | str) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: when it cannot be read, or is a device or a pipe, which may never end.
    """
    path = Path(path)
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "must be a regular file; got a device, a pipe or a socket", str(path))
    return path.read_bytes()
