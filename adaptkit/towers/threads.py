"""How many threads compute: one for small tensors, all for towers. Small tensors on many threads are slower on all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

SMALL = 2e8  # multiplications that are not worth a second thread
_limit: list[int] = []  # threads that a tower may take, inside `sized`


@contextlib.contextmanager
def sized(work: float) -> Iterator[None]:
    """One thread inside the block when `work`, in multiplications, is small, until a tower computes."""
    before = torch.get_num_threads()
    _limit.append(before)
    if work < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        _limit.pop()
        torch.set_num_threads(before)


def tower() -> None:
    """All threads from here on, backward pass included: a tower computes."""
    if _limit:
        torch.set_num_threads(_limit[-1])
