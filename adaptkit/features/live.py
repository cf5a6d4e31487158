"""Rows that are never stored: pixels, and views drawn anew; decoded ahead of a training step where it is known what."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from adaptkit.features.ahead import Ahead, Prepared
from adaptkit.features.decoding import decoders
from adaptkit.features.items import Source
from adaptkit.features.needs import Need
from adaptkit.features.parts import view_seed
from adaptkit.towers.backbone import Backbone


class Live:
    """Reads what is not stored."""

    def __init__(self, compute: Callable[[Need, Backbone, Sequence[Any]], Tensor], batch_size: int) -> None:
        """Start with nothing expected.

        Args:
            compute: rows of some prepared items.
            batch_size: of these, in one pass.
        """
        self.compute, self.batch_size = compute, batch_size
        self.ahead: Ahead | None = None

    def read(self, source: Source, need: Need, index: Sequence[int], backbone: Backbone) -> Tensor:
        """``(N, ...)`` or, with views, ``(N, V, ...)`` rows as `need` reads them; float32."""
        salt, size = drawn_salt(need), self.batch_size
        known = self.ahead and self.ahead.take((id(source), need, (*index,), salt))
        self.ahead = None
        prepared = known or prepare(source, need, index, backbone, salt)
        ready = [view for future in prepared for view in future.result()]
        rows = torch.cat([self.compute(need, backbone, ready[k : k + size]) for k in range(0, len(ready), size)])
        return need.read(rows.unflatten(0, (len(index), -1)) if need.views else rows)

    def expect(self, source: Source, need: Need, index: Sequence[int], backbone: Backbone) -> Ahead:
        """Begin to decode what will be read next, in threads.

        Views that are drawn anew are those that a reading would draw now. One that comes after other random draws finds
        other views, and decodes these: whether something was expected changes no number, and no order of draws.
        """
        with torch.random.fork_rng(devices=[]):
            salt = drawn_salt(need)
        prepared = prepare(source, need, index, backbone, salt)
        self.ahead = Ahead((id(source), need, (*index,), salt), prepared)
        return self.ahead


def prepare(source: Source, need: Need, index: Sequence[int], backbone: Backbone, salt: str) -> Prepared:
    """Let threads open some items, each once for all its views, and make ready what enters the tower."""
    views = [-1] * (need.views == 0 or need.plain_first) + list(range(need.views - need.plain_first))

    def views_of(i: int) -> list[Any]:
        key, item = source.open(i)
        return [need.prepare(item, backbone, v, view_seed(key, v, salt)) for v in views]

    return [decoders(os.getpid()).submit(views_of, i) for i in index]


def drawn_salt(need: Need) -> str:
    """What makes the views of this reading others than those of the last: drawn where they are to be fresh."""
    return f"{torch.initial_seed()}/{int(torch.randint(2**62, ()))}" if need.fresh else ""
