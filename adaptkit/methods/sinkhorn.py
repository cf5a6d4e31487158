"""Sinkhorn's algorithm on logits: what makes rows and columns have equal shares."""

from __future__ import annotations

import torch
from torch import Tensor


def balancing(logits: Tensor, sweeps: int) -> tuple[Tensor, Tensor]:
    """What is added to rows and to columns of ``(..., N, G)``, logarithms of shares, ``(..., N)`` and ``(..., G)``.

    >>> import torch
    >>> rows, columns = balancing(torch.randn(3, 4), sweeps=50)
    >>> columns.exp().sum().round(decimals=4)
    tensor(1.)
    """
    rows, columns = torch.zeros_like(logits[..., 0]), torch.zeros_like(logits[..., 0, :])
    for _ in range(sweeps):
        rows = -(logits + columns[..., None, :]).logsumexp(-1)
        columns = -(logits + rows[..., None]).logsumexp(-2)
    return rows.log_softmax(-1), columns.log_softmax(-1)
