"""Tensor functions that three or more methods share."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from adaptkit.task import Task


def one_view(views: Tensor) -> Tensor:
    """Draw one view of each image: ``(B, V, D)`` to ``(B, D)``."""
    rows = torch.arange(len(views), device=views.device)
    return views[rows, torch.randint(views.shape[1], (len(views),)).to(views.device)]


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """``(N,)`` class ids to ``(N, C)`` floats."""
    return F.one_hot(labels, classes).float()


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax over the last axis, nats."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


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


def in_parts(function: Callable[..., tuple[Tensor, ...]], *views: Tensor, rows: int = 1024) -> list[Tensor]:
    """What a function of images ``(B, V, D)`` returns, for so few at a time, `rows` views, that they fit in caches."""
    parts = zip(*(v.split(max(1, rows // v.shape[1])) for v in views), strict=True)
    return [torch.cat(same) for same in zip(*(function(*part) for part in parts), strict=True)]


def class_sums(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Sum over the rows of each class: ``(S, ...)`` to ``(C, ...)``."""
    return rows.new_zeros(classes, *rows.shape[1:]).index_add_(0, labels, rows)


class ClassCache(nn.Module):
    """``(C, K)`` slots; in those of one class, the surest of its images so far, the surest first.

    Attributes:
        keys: embeddings, ``(C, K, D)``; 0 where empty.
        entropy: what the images are ranked by, ``(C, K)``; infinite where empty.
        marks: what is kept with each image, ``(C, K, M)``.
        owner: the class of each slot, ``(C, K)``.
    """

    keys: Tensor
    entropy: Tensor
    marks: Tensor
    owner: Tensor

    def __init__(self, like: Tensor, slots: int, marks: int = 0) -> None:
        """`like` is ``(C, D)``, e.g. the class embeddings."""
        super().__init__()
        self.register_buffer("keys", like.new_zeros(len(like), slots, like.shape[1]))
        self.register_buffer("entropy", like.new_full((len(like), slots), torch.inf))
        self.register_buffer("marks", like.new_zeros(len(like), slots, marks))
        owner = torch.arange(len(like), device=like.device)[:, None].repeat(1, slots)
        self.register_buffer("owner", owner, persistent=False)

    @property
    def held(self) -> Tensor:
        """Which slots are taken, ``(C, K)``."""
        return self.entropy.isfinite()

    def admit(self, labels: Tensor, entropy: Tensor, x: Tensor, marks: Tensor | None = None) -> list[Held]:
        """Enter images ``(B, D)`` one after another. Among equals the older stays; infinite entropy never enters.

        Returns:
            What the images met, until the next are entered: what is still held, and what was held for a while.
        """
        end, slots, met, left = len(x), self.entropy.shape[1], torch.zeros_like(self.entropy, dtype=torch.long), []
        number = [i for i, h in enumerate(entropy.tolist()) if h < inf]  # of the images that may enter
        if number and slots:
            able = slice(None) if len(number) == end else torch.tensor(number).to(labels)
            classes, at = labels[able].unique(return_inverse=True)  # (T,), (A,)
            given = {"keys": x, "entropy": entropy, "marks": x[:, :0] if marks is None else marks.to(x)}
            pool = {n: torch.cat([getattr(self, n)[classes].flatten(0, 1), rows[able]]) for n, rows in given.items()}
            ranked, last = events(self.entropy[classes].tolist(), at.tolist(), entropy[able].tolist())
            first = [0] * len(classes) * slots + number
            last = [number[i] if i < len(number) else end for i in last]
            now = torch.tensor(ranked).to(at)  # rows of the pool
            for n in given:
                getattr(self, n)[classes] = pool[n][now]
            met[classes] = torch.tensor(first).to(at)[now]
            gone = [i for i, (since, until) in enumerate(zip(first, last, strict=True)) if since < until < end]
            if gone:
                when = torch.tensor([first, last]).to(at)
                owner = torch.cat([classes.repeat_interleave(slots), labels[able]])
                left = [Held(owner[gone], *(rows[gone] for rows in pool.values()), *when[:, gone])]
        taken, held = self.held.flatten(), (self.owner, self.keys, self.entropy, self.marks, met)
        bank, count = [*(part.flatten(0, 1) for part in held), taken * end], int(taken.sum())
        if end * (len(taken) - count) > 2 * count:  # empty slots cost more than moving the others together
            bank = [part[taken] for part in bank]
        return [Held(*bank), *left]


def events(ranks: list[list[float]], labels: list[int], entered: list[float]) -> tuple[list[list[int]], list[int]]:
    """Who is held in the end, and until when everyone was: what happens in a cache, as scalars.

    Args:
        ranks: of the old, by class, in order; infinite where a slot is empty.
        labels: of the new.
        entered: ranks of the new.

    Returns:
        By class, the old and the new that are held, in order, numbered one after another; and for each of these the
        number of the new at whose entry it left, or how many new there are.
    """
    slots = len(ranks[0])
    old = len(ranks) * slots
    held = [[*zip(row, range(slots * t, old), strict=False)] for t, row in enumerate(ranks)]
    last = [len(entered)] * (old + len(entered))
    for i, (t, entering) in enumerate(zip(labels, entered, strict=True)):
        bisect.insort(held[t], (entering, old + i))
        rank, number = held[t].pop()
        if rank < inf:
            last[number] = i
    return [[number for _, number in row] for row in held], last


@dataclass(frozen=True)
class Held:
    """What a cache held while images ``(B, D)`` entered it: M images, some of them from before.

    Attributes:
        label: ``(M,)``; `keys`: ``(M, D)``; `entropy`: ``(M,)``; `marks`: see `ClassCache`.
        first: number of the first of the images that met it, ``(M,)``; it met itself.
        last: number of the first that met it no more, ``(M,)``; 0 for an empty slot.
    """

    label: Tensor
    keys: Tensor
    entropy: Tensor
    marks: Tensor
    first: Tensor
    last: Tensor

    def affinity(self, x: Tensor, beta: float) -> Tensor:
        """``exp(-beta (1 - x k))``, ``(M, B)``; 0 where image and key did not meet."""
        return (self.keys @ x.T).sub_(1).mul_(beta).exp_().mul_(self.met(len(x)))

    def met(self, count: int) -> Tensor:
        """Which of the images met which of the keys, ``(M, B)``."""
        i = torch.arange(count, device=self.first.device)
        return (self.first[:, None] <= i) & (i < self.last[:, None])


def steps_from(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` values from `low` in equal steps that would reach `high` one step later, as caches are searched."""
    return tuple(low + i * (high - low) / count for i in range(count))


def ends(blocks: Iterable[Tensor]) -> Tensor:
    """The least and the largest number in some tensors, ``(2,)``."""
    both = torch.stack([torch.stack(block.aminmax()) for block in blocks])
    return torch.stack([both[:, 0].min(), both[:, 1].max()])


def raw_text(task: Task) -> Tensor:
    """Raw class embeddings, ``(C, D)``: the mean over each class's sentences, whose norms differ and count."""
    rows = task.encode([s for sentences in task.prompts for s in sentences]).to(task.text)
    return torch.stack([part.mean(0) for part in rows.split([len(sentences) for sentences in task.prompts])])
