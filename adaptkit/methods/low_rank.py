"""Low-rank updates of a backbone's maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from adaptkit.towers.backbone import Backbone
from adaptkit.towers.points import Tap


def low_rank_start(backbone: Backbone, maps: Sequence[str], rank: int) -> tuple[nn.ParameterList, nn.ParameterList]:
    """A and B of each map as they start: random, ``(r, W)``, and zero, ``(W', r)``, so that nothing is changed yet."""
    shapes = [backbone.weight(name).shape for name in maps]
    downs = [nn.init.kaiming_uniform_(torch.empty(rank, width), a=5**0.5) for _, width in shapes]
    return nn.ParameterList(downs), nn.ParameterList(torch.zeros(out, rank) for out, _ in shapes)


def low_rank(
    backbone: Backbone,
    updates: Mapping[str, tuple[Tensor, Tensor]],
    scale: float,
    drop: Callable[[Tensor], Tensor] | None = None,
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
