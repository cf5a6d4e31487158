"""Sums of exponential kernels over each class's keys, for many bandwidths at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

TILE = 2**16  # numbers in each of some tensors worked on together, so that all stay in a core's cache


def row_blocks(x: Tensor, classes: int) -> Sequence[Tensor]:
    """Rows in blocks of a size that `kernel_sums` and `count` are quick with."""
    return x.split(min(1024, max(64, TILE // (4 * classes))))


def kernel_sums(
    affinity: Tensor,
    labels: Tensor,
    classes: int,
    betas: Sequence[float],
    scale: float = 1.0,
    weights: Tensor | None = None,
) -> Iterator[Tensor]:
    """Sums over each class's keys of ``exp(beta (affinity - 1))``, in the order of `betas`, some at a time.

    Args:
        affinity: cosines ``(S, n)`` of keys with rows.
        labels: of the keys, ``(S,)``.
        classes: their number, C.
        betas: any.
        scale: what the sums are multiplied by.
        weights: of the keys, ``(S, G)``, for G sums at once; without, one sum of all.

    Yields:
        ``(k * G, n, C)`` for the next k values of beta, with classes before rows in memory.
    """
    weights = torch.ones_like(affinity[:, :1]) if weights is None else weights
    if not len(affinity):  # sums of nothing
        yield affinity.new_zeros(len(betas) * weights.shape[1], classes, affinity.shape[1]).transpose(1, 2)
        return
    top = (affinity := affinity.contiguous()).amax(0)  # (n,); a row's largest kernel is then 1, however large beta
    # of kernels this smooth in beta, all are combinations of a few, to the last digit
    few, shares = skeleton(tuple(betas), math.ceil(float((top - affinity.amin(0)).max())))
    sums = affinity.new_zeros(len(few), weights.shape[1], classes, len(top))
    for members, keys in shots(labels):
        size = max(1, 2 * TILE // (keys.shape[1] * len(top)))
        for some, rows in zip(members.split(size), keys.split(size), strict=True):
            below, by = affinity[rows] - top, weights[rows].transpose(1, 2)  # (c, K, n), (c, G, K)
            for i, beta in enumerate(few):
                sums[i][:, some] = torch.bmm(by, (below * beta).exp_()).transpose(0, 1)
    size = max(8, 16 * TILE // sums[0].numel())
    factors = scale * (torch.tensor(betas).to(top)[:, None] * (top - 1)).exp()  # (B, n)
    for share, part in zip(shares.to(top).split(size), factors.split(size), strict=True):
        many = (share @ sums.flatten(1)).view(-1, *sums.shape[1:]).mul_(part[:, None, None])  # (k, G, C, n)
        yield many.flatten(0, 1).transpose(1, 2)


def shots(labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Classes ``(c,)`` that have equally many keys, K, and their keys ``(c, K)``, for each such number."""
    counts, order = labels.bincount(), labels.argsort(stable=True)
    ends = counts.cumsum(0)
    for number in counts[counts > 0].unique().tolist():
        members = (counts == number).nonzero()[:, 0]
        yield members, order[ends[members, None] - number + torch.arange(number).to(order)]


@lru_cache(maxsize=64)
def skeleton(betas: tuple[float, ...], spread: int) -> tuple[list[float], Tensor]:
    """A few of the betas, and shares ``(B, few)``: ``exp(-beta t) = sum of share * exp(-beta' t)``, 0 <= t <= spread.

    The table of all kernels has a rank of a dozen in single precision; columns are taken greedily, largest rest first.
    """
    t = (torch.arange(256, dtype=torch.double) / 255 * math.pi).cos().mul(0.5).add(0.5) * spread
    table = (-t[:, None] * torch.tensor(betas, dtype=torch.double)).exp()  # (256, B)
    rest, few = table.clone(), list[int]()
    while len(few) < len(betas) and rest.abs().max() > 1e-9:
        few.append(int(rest.square().sum(0).argmax()))
        direction = rest[:, few[-1]] / rest[:, few[-1]].norm()
        rest -= direction[:, None] * (direction @ rest)
    return [betas[i] for i in few], torch.linalg.lstsq(table[:, few], table, driver="gelsd").solution.T
