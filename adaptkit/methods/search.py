"""Grid searches that do not answer cell by cell: what is linear in a hyperparameter is solved for it.

A class wins where its logit is above every other's. If logits are linear in a hyperparameter, each of the others leaves
the true class a half-line of its values, and all of them an interval: one pass over the classes, not one per value.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adaptkit.methods.evaluation.classification import hits
from adaptkit.methods.kernels import TILE

Grid = Mapping[str, Sequence[float]]

FAR = 3e38  # stands for infinity, which times zero would be no number
STEEP = 1e30  # stands for the inverse of zero
TIED = 1e16  # beyond all values of a grid, but nothing beside a margin times STEEP
NEAR = 1e-2  # of the gap between two values of a grid: closer to one of them, an interval's end is not trusted


@dataclass(frozen=True)
class Linear:
    """Logits ``fixed + sum of value * slopes[name]`` of n rows, for all values of the hyperparameters named.

    The others have one value each or, along a first axis, the next K of their combinations in the order of the grid.
    When all combinations are through, further rows follow. Memory is best laid out with classes before rows.

    Attributes:
        fixed: ``(n, C)`` or ``(K, n, C)``.
        slopes: by hyperparameter; ``(n, C)`` or ``(K, n, C)``.
    """

    fixed: Tensor
    slopes: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        """`fixed` and the slopes, ``(K, n, C)`` or ``(1, n, C)``."""
        return [t if t.dim() == 3 else t[None] for t in (self.fixed, *self.slopes.values())]


def count(answers: Iterable[Tensor | Linear], grid: Grid, labels: Tensor) -> Tensor:
    """Right answers of a sweep in each cell, shaped like the grid, as `Classification.right` counts them."""
    total, named = torch.zeros(0), list[str]()
    for answer, cells, rows in placed(answers, grid, len(labels)):
        values = [torch.tensor(grid[name]).to(answer.fixed) for name in answer.slopes]
        right = wins(answer.tensors, values, labels[rows])  # (K, ...)
        if rows.start == cells.start == 0:
            named = list(answer.slopes)
            total = right.new_zeros(combinations(grid, named), *right.shape[1:])
        total[cells] += right
    return arranged(total, grid, named).cpu()


def unfold(answers: Iterable[Tensor | Linear], grid: Grid, rows: int) -> Tensor:
    """Logits of a sweep at all cells in order, ``(cells, rows, C)``, for grids small enough."""
    found, named = dict[int, list[Tensor]](), list[str]()
    for answer, _, where in placed(answers, grid, rows):
        logits, *slopes = answer.tensors
        for depth, (name, slope) in enumerate(zip(answer.slopes, slopes, strict=True), 1):
            values = torch.tensor(grid[name]).to(slope)[:, None, None]
            logits = logits.unsqueeze(-3) + values * slope.unflatten(0, (-1, *[1] * depth))
        named = list(answer.slopes)
        found.setdefault(where.start, []).append(logits)
    whole = torch.cat([torch.cat(parts) for parts in found.values()], -2)
    return arranged(whole, grid, named).flatten(0, -3)


def placed(answers: Iterable[Tensor | Linear], grid: Grid, rows: int) -> Iterator[tuple[Linear, slice, slice]]:
    """A sweep's answers, with their places among the combinations of what they do not name, and with their rows."""
    row = cell = 0
    for given in answers:
        answer = given if isinstance(given, Linear) else Linear(given)
        tensors = answer.tensors
        whole = combinations(grid, answer.slopes)
        last, end = cell + max(map(len, tensors)), row + tensors[0].shape[1]
        if last > whole or end > rows:
            raise ValueError(f"a sweep must answer {rows} rows in {whole} cells; got row {end} in cell {last}")
        yield answer, slice(cell, last), slice(row, end)
        row, cell = (end, 0) if last == whole else (row, last)
    if (row, cell) != (rows, 0):
        raise ValueError(f"a sweep must answer {rows} rows in every cell; got {row} rows, and {cell} cells of the next")


def combinations(grid: Grid, named: Iterable[str]) -> int:
    """How many combinations of values the hyperparameters have that are not named."""
    return math.prod(len(values) for name, values in grid.items() if name not in named)


def arranged(found: Tensor, grid: Grid, named: Sequence[str]) -> Tensor:
    """``(combinations, *named, ...)`` with an axis for each hyperparameter, in the grid's order."""
    order = [*(name for name in grid if name not in named), *named]
    found = found.view(*(len(grid[name]) for name in order), *found.shape[1 + len(named) :])
    return found.movedim([order.index(name) for name in grid], list(range(len(grid))))


def wins(tensors: Sequence[Tensor], values: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Rows whose true class wins, ``(K, *(len(v) for v in values))``.

    Args:
        tensors: what is fixed and a slope for each of `values`, ``(K, n, C)`` or ``(1, n, C)``.
        values: of each hyperparameter.
        labels: ``(n,)``.
    """
    if not values:
        return hits(tensors[0], labels).sum(-1)
    own = labels[:, None]
    if any(t.mT.is_contiguous() for t in tensors):  # one layout for all
        tensors = [t.mT.contiguous().mT for t in tensors]
    start, *outer, slope = (t - t.gather(-1, own.expand(len(t), *own.shape)) for t in tensors)  # over the true class
    known, back = values[-1].unique(return_inverse=True)
    at = known
    if not outer and len(slope) > len(start) and at[0] > 0:  # divide by the value, so that what K share is inverted
        start, slope, at = slope, -start, -1 / at
    inverse, upper, lower = half_lines(slope, own)
    points = list(itertools.product(*(v.tolist() for v in values[:-1])))
    k = max(map(len, tensors))
    low, high = (start.new_empty(k, len(points), len(labels)) for _ in range(2))
    step = max(1, TILE // max(1, start[0].numel()))
    for i in range(0, k, step):
        base, inv, up, lo, *more = (
            t if len(t) == 1 else t[i : i + step] for t in (start, inverse, upper, lower, *outer)
        )
        moved, ends = (torch.empty_like(max((base, inv, *more), key=len)) for _ in range(2))
        for j, point in enumerate(points):
            margin = base
            for value, t in zip(point, more, strict=True):
                margin = torch.add(margin, t, alpha=value, out=moved)
            torch.amin(torch.addcmul(up, margin, inv, out=ends), -1, out=high[i : i + step, j])
            torch.amax(torch.addcmul(lo, margin, inv, out=ends), -1, out=low[i : i + step, j])
    right, *doubtful = between(low.flatten(0, 1), high.flatten(0, 1), at)
    count_doubtful(right, doubtful, tensors, labels, torch.tensor(points).to(known), known)
    return right[:, back].view(k, *map(len, values))


def count_doubtful(
    right: Tensor, doubtful: Sequence[Tensor], tensors: Sequence[Tensor], labels: Tensor, points: Tensor, last: Tensor
) -> None:
    """Count in `right`, ``(K * points, V)``, what an interval's end cannot tell: the logits themselves are asked.

    Args:
        right: changed.
        doubtful: line, row and number of each value, as `between` gives them.
        tensors: as `wins` takes them.
        labels: ``(n,)``.
        points: values of all hyperparameters but the last, ``(points, outer)``.
        last: those of the last, ``(V,)``.
    """
    for line, row, i in zip(*(t.split(max(1, 2**22 // tensors[0].shape[-1])) for t in doubtful), strict=True):
        logits, *slopes = (t[line.div(len(points), rounding_mode="floor") % len(t), row] for t in tensors)
        for value, t in zip((*points[line % len(points)].T, last[i]), slopes, strict=True):
            logits = logits + value[:, None] * t
        hit = hits(logits, labels[row])
        right.index_put_((line[hit], i[hit]), right.new_ones(()), accumulate=True)


def half_lines(slope: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tensors i, u and l: ``margin + value * slope < 0`` for all classes between max(l + margin * i) and min(u + ...).

    The margin is a class's over the true one, `own`. Where both lines are one, the class of lower number wins.
    """
    level, behind = slope == 0, (torch.arange(slope.shape[-1]).to(own)[:, None] > own.T).T
    inverse = slope.reciprocal().neg_().masked_fill_(level, -STEEP).clamp_(-STEEP, STEEP)
    upper = (slope < 0).to(slope).mul_(FAR).masked_fill_(level, -TIED).masked_fill_(level & behind, TIED)
    lower = (slope >= 0).to(slope).mul_(-FAR)
    return inverse, upper.scatter_(-1, own.expand(len(slope), *own.shape), FAR), lower


def between(low: Tensor, high: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """How many rows of ``(L, n)`` have each of `at`, ascending, between `low` and `high`, ``(L, V)``.

    Also the line, row and number of each value too near to one of the ends to tell, which is not counted.
    """
    gaps = torch.cat([at.new_full((1,), torch.inf), at.diff(), at.new_full((1,), torch.inf)])
    room = NEAR * torch.minimum(gaps[1:], gaps[:-1])
    edges = torch.stack([at - room, at + room], 1).flatten()
    first, last = (torch.bucketize(end, edges, out_int32=True) for end in (low, high))  # odd i: near value i // 2
    start, size = (first + 1) >> 1, len(low) * (len(at) + 1)
    cell = torch.arange(0, size, len(at) + 1)[:, None].to(first)
    begun, ended = ((cell + i).flatten().bincount(minlength=size) for i in (start, torch.maximum(start, last >> 1)))
    maybe = (first >> 1) < ((last + 1) >> 1)
    near_low, near_high = (first & 1).bool() & maybe, (last & 1).bool() & maybe & (first != last)
    line, row = torch.cat([near_low.nonzero(), near_high.nonzero()]).T
    value = torch.cat([first[near_low], last[near_high]]) >> 1
    return (begun - ended).view(len(low), -1).cumsum(1)[:, :-1], line, row, value
