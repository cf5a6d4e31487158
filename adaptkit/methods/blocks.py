"""Layers of heads that are trained on features: a transformer block, a choice of tokens."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit.towers.backbone import unit

Activation = Literal["quick", "gelu", "relu"]


class TokenBlock(nn.Module):
    """Self-attention and a perceptron, each with a norm and a residual path.

    Args:
        width: of tokens.
        heads: of the attention.
        hidden: width of the perceptron.
        activation: of the perceptron; ``"quick"`` is CLIP's approximation of GELU.
        eps: of the norms.
        norm_first: normalise what enters each part, as CLIP does; else what leaves it.

    >>> import torch
    >>> TokenBlock(8, heads=2, hidden=32)(torch.randn(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        hidden: int,
        activation: Activation = "quick",
        eps: float = 1e-5,
        norm_first: bool = True,
    ) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.activation, self.norm_first = activation, norm_first

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Tokens ``(B, T, W)``; none attends to the `hidden`, ``(B, T)``; numbers there are added to scores."""
        if self.norm_first:
            x = x + self.attend(self.norm1(x), hidden)
            return x + self.perceive(self.norm2(x))
        x = self.norm1(x + self.attend(x, hidden))
        return self.norm2(x + self.perceive(x))

    def attend(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        """The attention's output, ``(B, T, W)``."""
        return self.attention(x, x, x, key_padding_mask=hidden, need_weights=False)[0]

    def perceive(self, x: Tensor) -> Tensor:
        """The perceptron's output, ``(B, T, W)``."""
        return self.fc2(activated(self.fc1(x), self.activation))


class TellingTokens(nn.Module):
    """Of each item the tokens that tell most beside its embedding, by a score that is learned.

    A token that is chosen carries the gradient of its share among the item's, which is 1 in value.

    Args:
        width: of tokens.
        kept: how many.

    >>> import torch
    >>> TellingTokens(8, kept=2)(torch.randn(3, 8), torch.randn(3, 5, 8)).shape
    torch.Size([3, 2, 8])
    """

    def __init__(self, width: int, kept: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1))
        self.kept = kept

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Of unit norm and in their order, ``(..., kept, W)``, of ``(..., W)`` and ``(..., T, W)``; all if so few."""
        x, tokens = unit(x), unit(tokens)
        if tokens.shape[-2] <= self.kept:
            return tokens
        shares = self.score(torch.cat([tokens, x[..., None, :].expand_as(tokens)], -1))[..., 0].softmax(-1)
        best = shares.topk(self.kept, -1).indices.sort(-1).values  # (..., kept)
        share = shares.gather(-1, best)
        rows = tokens.gather(-2, best[..., None].expand(*best.shape, tokens.shape[-1]))
        return rows * (share / share.detach())[..., None]


def fitting_heads(width: int, most: int) -> int:
    """The largest number of heads, at most `most`, that a width can be parted into."""
    return next(heads for heads in range(min(most, width), 0, -1) if width % heads == 0)


def activated(x: Tensor, activation: Activation) -> Tensor:
    """What leaves a layer, through an activation by name."""
    if activation == "quick":
        return x * (1.702 * x).sigmoid()
    return F.gelu(x) if activation == "gelu" else F.relu(x)
