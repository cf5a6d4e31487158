"""Tensor functions that three or more methods share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
