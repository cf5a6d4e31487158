"""What a row is called on disk, and what its view is drawn from: by the digest of its item, the same on any machine."""

from __future__ import annotations

import hashlib

import numpy as np


def view_seed(key: str, view: int, salt: str = "") -> str:
    """What a view is drawn from: equal seeds are equal views, on any machine."""
    return f"{key}/{view}{salt}"


def row_id(key: str, view: int) -> np.ndarray:
    """The name on disk of one view of an item, -1 for the plain one: 16 bytes of a digest."""
    return np.frombuffer(hashlib.blake2b(f"{key}#{view}".encode(), digest_size=16).digest(), np.uint8)
