"""How a grid goes on beyond its ends: in its own steps, within what its values may be."""

from __future__ import annotations

import itertools
import math
import typing
from collections.abc import Sequence
from typing import Literal

from adaptkit.io.errors import must_be

Widening = Literal["paper", "widen"]
"""How a grid is searched: as it is, or beyond an edge at which the best cell lies."""
Side = Literal["", "low", "high"]
"""An end of a grid, or neither."""

TIMES = 5  # that a grid is widened for one hyperparameter, at most
FURTHER = 10  # times as far, about, each time
RATIOS = 20  # values in equal ratios behind those in equal steps


def known_search(search: Widening) -> Widening:
    """The way to search itself.

    Raises:
        ValueError: when it is none, naming both.
    """
    if search not in typing.get_args(Widening):
        raise ValueError(must_be("search", typing.get_args(Widening), search))
    return search


def room(end: float, side: Side, limits: tuple[float, float, bool]) -> bool:
    """Whether values may lie beyond an end."""
    return end > limits[0] if side == "low" else end < limits[1]


def beyond(
    grid: Sequence[float], tried: Sequence[float], side: Side, limits: tuple[float, float, bool]
) -> tuple[float, ...]:
    """The values that continue a grid beyond one of its ends, outwards; none where values end.

    Each time it goes on about ten times as far: a grid of equal steps in as many of these (of ten times the width, when
    it was widened before) and then in equal ratios, any other in its last ratio. A grid of one sign keeps it: towards
    zero, values are halved when equal steps are through.

    Args:
        grid: the values at first.
        tried: all values that were tried.
        side: ``"low"`` or ``"high"``.
        limits: see `allowed`.
    """
    sign = 1 if side == "high" else -1
    rising, top = sorted({sign * v for v in grid}), max(sign * v for v in tried)
    limit = limits[1] if side == "high" else -limits[0]
    more = outward(rising, top)
    fresh = [float(f"{v:.12g}") for v in more if v < limit]
    if len(fresh) < len(more):
        fresh.append(limit)
    if limits[2]:
        fresh = [v for v in dict.fromkeys(map(round, fresh)) if top < v <= limit and (v < 0 or top > 0)]
    return tuple(sign * v for v in fresh if v > top)


def outward(rising: Sequence[float], top: float) -> list[float]:
    """Values that continue an ascending grid, which was continued up to `top` already."""
    before, last, count = rising[-2], rising[-1], len(rising)
    gap, ratio = last - before, last / before if before * last > 0 else 0.0
    gaps = [b - a for a, b in itertools.pairwise(rising)]
    equal = max(gaps) - min(gaps) < 1e-6 * max(gaps)
    if equal and top > 0:
        wide = gap * FURTHER ** round(math.log(top / last, FURTHER))
        steps = [top + i * wide for i in range(1, count + 1)]
        left = FURTHER * top / steps[-1]
        return steps + [steps[-1] * left ** (i / RATIOS) for i in range(1, RATIOS + 1) if left > 1]
    if equal and top < 0:
        steps = [top + i * gap for i in range(1, count + 1) if top + i * gap < -1e-6 * gap]
        return steps or [top / 2**i for i in range(1, 5)]
    if not ratio:
        return [top + gap] if top > 0 else []
    return [top * ratio**i for i in range(1, 1 + max(1, math.ceil(math.log(FURTHER) / abs(math.log(ratio)) - 1e-9)))]
