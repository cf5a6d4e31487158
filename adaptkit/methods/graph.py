"""Nearest neighbours, and sparse graphs of them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

NIL = -60.0  # the logarithm of nothing: the numbers further down, denormals, slow processors tenfold


def knn(x: Tensor, bank: Tensor, k: int, room: int = 2**22) -> tuple[Tensor, Tensor]:
    """The `k` rows of `bank` with the largest dot products, largest first, for each row of `x`.

    Args:
        x: ``(N, D)``.
        bank: ``(M, D)``.
        k: neighbours; M if that is less.
        room: products held at a time, never all ``N * M``; few enough for their memory to be used again.

    Returns:
        Dot products and row numbers, both ``(N, k)``.
    """
    found = [largest(part @ bank.T, min(k, len(bank))) for part in x.split(max(1, room // max(1, len(bank))))]
    return torch.cat([values for values, _ in found]), torch.cat([at for _, at in found])


def largest(scores: Tensor, k: int, group: int = 64) -> tuple[Tensor, Tensor]:
    """`Tensor.topk` of ``(N, M)``, sooner where M is large: by the groups of columns with the largest maxima."""
    if scores.shape[1] < 4 * max(1, k) * group:
        return scores.topk(k)
    columns = torch.arange(scores.shape[1], device=scores.device)
    grouped, behind = columns.split([len(columns) // group * group, len(columns) % group])
    best = scores[:, : len(grouped)].unflatten(1, (-1, group)).amax(-1).topk(k).indices  # they hold the k largest
    at = torch.cat([grouped.view(-1, group)[best].flatten(1), behind.expand(len(scores), -1)], 1)
    values, which = scores.gather(1, at).topk(k)
    return values, at.gather(1, which)


def affinities(nodes: Tensor, k: int) -> Tensor:
    """Normalised symmetric adjacency of unit-norm rows, each linked to its `k` nearest, sparse, ``(M, M)``.

    >>> import torch, adaptkit as ak
    >>> from adaptkit.methods.graph import affinities
    >>> affinities(ak.unit(torch.randn(6, 4)), k=2).shape
    torch.Size([6, 6])
    """
    n = len(nodes)
    cosine, to = knn(nodes, nodes, k + 1)
    source = torch.arange(n).to(to)[:, None].expand_as(to)
    other = to != source
    other &= other.cumsum(1) <= k  # of equal rows, a node itself may come late
    w, edge = (cosine[other] + 1) / 4, torch.stack([source[other], to[other]])  # half of each direction
    degree = w.new_zeros(n).index_add_(0, edge.flatten(), w.repeat(2))
    degree = degree.clamp_min(1e-12)  # of a node whose neighbours all lie opposite
    w = w * degree[edge[0]].rsqrt() * degree[edge[1]].rsqrt()  # D^-1/2 W D^-1/2
    both = torch.cat([edge, edge.flip(0)], 1)
    return torch.sparse_coo_tensor(both, w.repeat(2), (n, n), check_invariants=False).coalesce()


def spread_labels(graph: Tensor, classes: int, alpha: float, steps: int, tolerance: float) -> Tensor:
    """``(I - alpha W)^-1`` applied to the first nodes, those of classes, up to the error that some steps leave.

    Args:
        graph: W, ``(M, M)``.
        classes: C, at most M.
        alpha: how far what is spread travels, below 1.
        steps: of conjugate gradients.
        tolerance: residual, beside the right-hand side, at which a class takes no further step.

    Returns:
        ``(M, C)``.

    >>> import torch
    >>> from adaptkit.methods.graph import spread_labels
    >>> spread_labels(torch.eye(4) * 0.5, classes=2, alpha=0.5, steps=20, tolerance=1e-6).shape
    torch.Size([4, 2])
    """
    r = torch.eye(len(graph), classes).to(graph.device)
    z, p, rr = torch.zeros_like(r), r.clone(), r.square().sum(0)
    enough = tolerance**2 * rr
    for _ in range(steps):
        q = p - alpha * (graph @ p)
        step = torch.where(rr > enough, rr / (p * q).sum(0), 0)
        z, r = z + step * p, r - step * q
        before, rr = rr, r.square().sum(0)
        p = r + rr / before.clamp_min(1e-30) * p
    return z


class Graph:
    """A sparse matrix, ``(rows, M)``: in ``graph @ f`` each row is the weighted sum of those of ``f`` it links to."""

    def __init__(self, edge: Tensor, weight: Tensor, rows: int) -> None:
        """`edge` is ``(2, E)``, from and to; `weight` ``(E,)``."""
        order = edge[0].argsort(stable=True)
        self.to, self.weight = edge[1, order], weight[order]
        self.start = F.pad(edge[0].bincount(minlength=rows).cumsum(0), (1, 0))  # (rows + 1,)

    def __len__(self) -> int:
        return len(self.start) - 1

    def __matmul__(self, f: Tensor) -> Tensor:
        return self.times(f, slice(0, len(self)))

    def times(self, f: Tensor, rows: slice) -> Tensor:
        """Those rows of the product."""
        first, last = (int(self.start[i]) for i in (rows.start, rows.stop))
        start, links = self.start[rows] - first, slice(first, last)
        return F.embedding_bag(self.to[links], f, start, per_sample_weights=self.weight[links], mode="sum")


def smoothed(graph: Graph, own: Tensor, z: Tensor, new: Tensor, sweeps: int) -> tuple[Tensor, Tensor]:
    """Assignments that follow their neighbours: ``log_softmax(own + graph @ exp(z))``, again and again.

    Args:
        graph: of N nodes.
        own: what each node has by itself, ``(N, C)``.
        z: logarithms of the assignments before, ``(N, C)``; written over, as is `new`, another such tensor.
        new: as `z`.
        sweeps: how often.

    Returns:
        The logarithms after the last sweep, and the tensor that is free by then.

    >>> import torch
    >>> from adaptkit.methods.graph import Graph, smoothed
    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]), torch.ones(2), 2)
    >>> z, _ = smoothed(graph, torch.eye(2, 3), torch.zeros(2, 3), torch.zeros(2, 3), sweeps=2)
    >>> z.argmax(1)
    tensor([0, 1])
    """
    step = max(1, 2**20 // own.shape[1])
    for left in reversed(range(sweeps)):
        if left == sweeps - 1:
            z.clamp_min_(NIL).exp_()
        for i in range(0, len(own), step):  # so many fit in caches
            rows = slice(i, min(i + step, len(own)))
            total = graph.times(z, rows).add_(own[rows])
            if left:
                torch.softmax(total, -1, out=new[rows]).clamp_min_(math.exp(NIL))
            else:
                torch.log_softmax(total, -1, out=new[rows])
        z, new = new, z
    return z, new
