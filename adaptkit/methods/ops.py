"""Tensor functions that three or more methods share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from adaptkit.methods.task import Task


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


def in_parts(function: Callable[..., tuple[Tensor, ...]], *views: Tensor, rows: int = 1024) -> list[Tensor]:
    """What a function of images ``(B, V, D)`` returns, for so few at a time, `rows` views, that they fit in caches."""
    parts = zip(*(v.split(max(1, rows // v.shape[1])) for v in views), strict=True)
    return [torch.cat(same) for same in zip(*(function(*part) for part in parts), strict=True)]


def class_sums(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Sum over the rows of each class: ``(S, ...)`` to ``(C, ...)``."""
    return rows.new_zeros(classes, *rows.shape[1:]).index_add_(0, labels, rows)


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
