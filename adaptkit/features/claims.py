"""Rows that somebody is computing, told by locks on single bytes of a file: they vanish when their process dies.

A row's byte is a number of 62 bits from its id, far beyond the end of the file, which stays empty. Locks of this kind
belong to a process: what its own threads claimed is kept in memory beside them.
"""

import fcntl
import os
import threading
from pathlib import Path

import numpy as np

_guard = threading.Lock()
_held: dict[tuple[int, Path], tuple[int, set[int]]] = {}  # by process and file: its descriptor, the bytes claimed


def claim(path: Path, ids: np.ndarray) -> np.ndarray:
    """Claim the rows of uint8 ``(N, 16)`` ids that nobody else has claimed; which they are, bool ``(N,)``."""
    with _guard:
        key = os.getpid(), path
        if key not in _held:
            _held[key] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), set()
        descriptor, mine = _held[key]
        found = [_lock(descriptor, mine, place) for place in _places(ids)]
        _close_if_idle(key)
    return np.array(found, bool)


def release(path: Path, ids: np.ndarray) -> None:
    """Give up claims, so that others may compute what is not stored by now."""
    with _guard:
        key = os.getpid(), path
        if key not in _held:
            return
        descriptor, mine = _held[key]
        gone = mine.intersection(_places(ids))
        for place in gone if gone != mine else ():  # all of them are given up at once, by closing
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, place)
        mine -= gone
        _close_if_idle(key)


def _lock(descriptor: int, mine: set[int], place: int) -> bool:
    if place in mine:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except (BlockingIOError, PermissionError):  # what a system says when another process has it
        return False
    mine.add(place)
    return True


def _places(ids: np.ndarray) -> list[int]:
    return [int.from_bytes(row[:8].tobytes()) >> 2 for row in ids]


def _close_if_idle(key: tuple[int, Path]) -> None:
    """Closing a descriptor gives up every lock that the process has on the file: only when there is none."""
    descriptor, mine = _held[key]
    if not mine:
        del _held[key]
        os.close(descriptor)
