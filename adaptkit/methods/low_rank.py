"""Low-rank updates of a backbone's maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from torch import Tensor

from adaptkit.towers.backbone import Backbone
from adaptkit.towers.points import Tap

Pair = tuple[Tensor, Tensor]


def low_rank(
    backbone: Backbone, updates: Mapping[str, Pair], scale: float, drop: Callable[[Tensor], Tensor] | None = None
) -> AbstractContextManager[None]:
    """A block in which maps compute ``W x + scale * B A x``: summed into their weights, or beside them with dropout.

    Args:
        backbone: whose maps they are.
        updates: A, ``(r, W)``, and B, ``(W', r)``, by the map's point.
        scale: of all updates.
        drop: acts on what enters an update.
    """
    if drop is None:
        return backbone.weights({name: backbone.weight(name) + scale * b @ a for name, (a, b) in updates.items()})

    def beside(a: Tensor, b: Tensor) -> Tap:
        return lambda x, out: out + scale * (drop(x) @ a.T @ b.T)

    return backbone.taps({name: beside(a, b) for name, (a, b) in updates.items()})
