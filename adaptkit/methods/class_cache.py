"""The surest images of each class so far, as streams keep them."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn


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
        return self.entropy < inf

    def admit(self, labels: Tensor, entropy: Tensor, x: Tensor, marks: Tensor | None = None) -> list[Meetings]:
        """Enter images ``(B, D)`` one after another. Among equals the older stays; infinite entropy never enters.

        Returns:
            What the images met, until the next are entered: what is still held, and what was held for a while.
        """
        if len(x) == 1:
            return [self.met_by_one(int(labels), float(entropy), x, marks)]
        end, slots, met, left = len(x), self.entropy.shape[1], torch.zeros_like(self.entropy, dtype=torch.long), []
        if entered := self.enter(labels, entropy, x, marks):
            classes, number, pool = entered.classes, entered.number, entered.pool
            first = [0] * len(classes) * slots + number
            last = [number[i] if i < len(number) else end for i in entered.last]
            met[classes] = torch.tensor(first).to(labels)[entered.now]
            gone = [i for i, (since, until) in enumerate(zip(first, last, strict=True)) if since < until < end]
            if gone:
                when = torch.tensor([first, last]).to(labels)
                owner = torch.cat([classes.repeat_interleave(slots), labels[number]])
                left = [Meetings(owner[gone], *(rows[gone] for rows in pool.values()), *when[:, gone])]
        taken, held = self.held.flatten(), (self.owner, self.keys, self.entropy, self.marks, met)
        bank, count = [*(part.flatten(0, 1) for part in held), taken * end], int(taken.sum())
        if end * (len(taken) - count) > 2 * count:  # empty slots cost more than moving the others together
            bank = [part[taken] for part in bank]
        return [Meetings(*bank), *left]

    def met_by_one(self, label: int, entropy: float, x: Tensor, marks: Tensor | None) -> Meetings:
        """Enter one image ``(1, D)``, and return what it met: all that is held."""
        before = self.entropy[label].tolist() if entropy < inf else []
        place = bisect.bisect_right(before, entropy)
        if place < len(before):
            new = {"keys": x, "entropy": entropy, "marks": x[:, :0] if marks is None else marks}
            for name, row in new.items():
                held = getattr(self, name)[label]
                if place + 1 < len(before) and before[place] < inf:  # those behind it move on
                    held[place + 1 :] = held[place:-1].clone()
                held[place] = row
        owner, ranks, first = self.owner.flatten(), self.entropy.flatten(), torch.zeros_like(self.owner).flatten()
        return Meetings(owner, self.keys.flatten(0, 1), ranks, self.marks.flatten(0, 1), first, ranks < inf)

    def enter(self, labels: Tensor, entropy: Tensor, x: Tensor, marks: Tensor | None = None) -> Entered | None:
        """Enter images as `admit` does, and tell who came and left; None where no image may enter."""
        slots, h = self.entropy.shape[1], entropy.tolist()
        number = [i for i, rank in enumerate(h) if rank < inf]  # of the images that may enter
        if not number or not slots:
            return None
        able = slice(None) if len(number) == len(x) else torch.tensor(number).to(labels)
        classes, at = labels[able].unique(return_inverse=True)  # (T,), (A,)
        given = {"keys": x, "entropy": entropy, "marks": x[:, :0] if marks is None else marks.to(x)}
        pool = {n: torch.cat([getattr(self, n)[classes].flatten(0, 1), rows[able]]) for n, rows in given.items()}
        ranks, of = self.entropy[classes].tolist(), at.tolist()
        ranked, last = events(ranks, of, [h[i] for i in number])
        now = torch.tensor(ranked).to(at)  # rows of the pool
        for n in given:
            getattr(self, n)[classes] = pool[n][now]
        return Entered(classes, of, number, pool, ranks, now, last)


@dataclass(frozen=True)
class Entered:
    """What happened as images entered a cache: those held before and the new, numbered one after another.

    Attributes:
        classes: those of the new, T.
        of: which of these each of the new is of.
        number: of the new among all images, of which some may not have been able to enter.
        pool: what the cache keeps of each, by name.
        ranks: of those before, by class, in order; infinite where a slot was empty.
        now: who is held in the end, by class, ``(T, K)``.
        last: number of the new at whose entry each left, or how many new there are.
    """

    classes: Tensor
    of: list[int]
    number: list[int]
    pool: dict[str, Tensor]
    ranks: list[list[float]]
    now: Tensor
    last: list[int]


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
class Meetings:
    """What a cache held while images ``(B, D)`` entered it: M images, some of them from before.

    Attributes:
        label: ``(M,)``; `keys`: ``(M, D)``; `entropy`: ``(M,)``; `marks`: see `ClassCache`.
        first: number of the first of the images that met it, ``(M,)``; it met itself.
        last: number of the first that met it no more, ``(M,)``; 0 for an empty slot; for one image, whether it met it.
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
        if count == 1:
            return self.last[:, None] > 0
        i = torch.arange(count, device=self.first.device)
        return (self.first[:, None] <= i) & (i < self.last[:, None])
