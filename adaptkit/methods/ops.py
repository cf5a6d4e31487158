"""Tensor functions that three or more methods share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptkit.features.items import Images, InMemory
from adaptkit.features.needs import Need
from adaptkit.towers.backbone import unit

if TYPE_CHECKING:
    from adaptkit.methods.task import Task


def one_view(views: Tensor) -> Tensor:
    """Draw one view of each image: ``(B, V, D)`` to ``(B, D)``."""
    return views[pick_views(views)]


def pick_views(views: Tensor, whole: int = 0, start: int = 0) -> tuple[Tensor, Tensor]:
    """An index of one view of each image in ``(B, V, ...)``, drawn from torch's global generator.

    Where they are a part of a `whole` batch, from `start` on, it draws for all of it, as every other part does.
    """
    rows = torch.arange(len(views), device=views.device)
    drawn = torch.randint(views.shape[1], (whole or len(views),))[start : start + len(views)]
    return rows, drawn.to(views.device)


def as_queries(batch: Images, needs: Mapping[str, Need]) -> Images:
    """Support rows as `forward` reads queries: of views, where a query has none, one of each image, drawn anew.

    Args:
        batch: B support images, bound to what is read of the support.
        needs: of queries. Each is met by the support's need of its name or, where there is none, of its place; the same
            view of an image is drawn for all of them. What a query reads of unit norm is brought to it.
    """
    held, drawn = dict[tuple[str, Need], Tensor](), list[tuple[Tensor, Tensor]]()
    for (name, need), other in zip_longest(needs.items(), [*batch.needs][: len(needs)]):
        source = name if name in batch.needs else other
        given = batch.needs.get(source)
        if given is None or not given.views or need.views:
            continue
        views = getattr(batch, source)  # (B, V, ...)
        drawn = drawn or [pick_views(views, *batch.part)]
        rows = views[drawn[0]]
        held[name, need] = unit(rows) if getattr(need, "unit", False) and not getattr(given, "unit", True) else rows
    if not held:
        return batch
    return Images(InMemory(held, batch), torch.arange(len(batch)), batch.labels, needs, batch.device)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """``(N,)`` class ids to ``(N, C)`` floats."""
    return F.one_hot(labels, classes).float()


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax over the last axis, nats."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def row_variance(x: Tensor) -> Tensor:
    """The variance between rows in each dimension, ``(N, D)`` to ``(D,)``; of one row it is 0."""
    return x.var(0, correction=min(1, len(x) - 1))


def standardized(x: Tensor) -> Tensor:
    """Rows of mean 0 and deviation 1 along the last axis; of zeros where all of a row's numbers are equal."""
    deviation = x.std(-1, correction=min(1, x.shape[-1] - 1), keepdim=True)
    return (x - x.mean(-1, keepdim=True)) / deviation.clamp_min(1e-12)


def in_parts(function: Callable[..., tuple[Tensor, ...]], *views: Tensor, rows: int = 1024) -> list[Tensor]:
    """What a function of images ``(B, V, D)`` returns, for so few at a time, `rows` views, that they fit in caches."""
    parts = [*zip(*(v.split(max(1, rows // v.shape[1])) for v in views), strict=True)]
    if len(parts) == 1:
        return [*function(*parts[0])]
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
