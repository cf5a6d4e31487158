"""Tensor functions that three or more methods share."""

from __future__ import annotations

from collections.abc import Iterable
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


def knn(x: Tensor, bank: Tensor, k: int, room: int = 2**26) -> tuple[Tensor, Tensor]:
    """The `k` rows of `bank` with the largest dot products, largest first, for each row of `x`.

    Args:
        x: ``(N, D)``.
        bank: ``(M, D)``.
        k: neighbours; M if that is less.
        room: products held at a time, never all ``N * M``.

    Returns:
        Dot products and row numbers, both ``(N, k)``.
    """
    found = [(part @ bank.T).topk(min(k, len(bank))) for part in x.split(max(1, room // max(1, len(bank))))]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def class_sums(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Sum over the rows of each class: ``(S, ...)`` to ``(C, ...)``."""
    return rows.new_zeros(classes, *rows.shape[1:]).index_add_(0, labels, rows)


class ClassCache(nn.Module):
    """``(C, K)`` slots; in those of one class, the surest of its images so far, the surest first.

    Attributes:
        keys: embeddings, ``(C, K, D)``; 0 where empty.
        entropy: what the images are ranked by, ``(C, K)``; infinite where empty.
        marks: what is kept with each image, ``(C, K, M)``.
    """

    keys: Tensor
    entropy: Tensor
    marks: Tensor

    def __init__(self, like: Tensor, slots: int, marks: int = 0) -> None:
        """`like` is ``(C, D)``, e.g. the class embeddings."""
        super().__init__()
        self.register_buffer("keys", like.new_zeros(len(like), slots, like.shape[1]))
        self.register_buffer("entropy", like.new_full((len(like), slots), torch.inf))
        self.register_buffer("marks", like.new_zeros(len(like), slots, marks))

    @property
    def held(self) -> Tensor:
        """Which slots are taken, ``(C, K)``."""
        return self.entropy.isfinite()

    def admit(self, label: Tensor, entropy: Tensor, x: Tensor, marks: Tensor | None = None) -> None:
        """Enter an image ``(D,)``. Among equals the older stays; infinite entropy never enters."""
        ranks = torch.cat([self.entropy[label], entropy[None]])  # (K + 1,)
        order = ranks.argsort(stable=True)[:-1]
        self.entropy[label] = ranks[order]
        self.keys[label] = torch.cat([self.keys[label], x[None]])[order]
        if marks is not None:
            self.marks[label] = torch.cat([self.marks[label], marks[None].to(x)])[order]

    def affinity(self, x: Tensor, beta: float) -> Tensor:
        """``exp(-beta (1 - x k))`` of each slot, ``(C, K)``; 0 where empty."""
        return (beta * (self.keys @ x - 1)).exp() * self.held


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
