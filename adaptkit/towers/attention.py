"""Attention whose maps are modules of their own, so that each can be entered: others keep them in one matrix."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SplitAttention(nn.Module):
    """`nn.MultiheadAttention` on itself, in evaluation, with the maps ``q``, ``k``, ``v`` and ``out``.

    >>> import torch
    >>> joined = nn.MultiheadAttention(8, 2, batch_first=True)
    >>> x = torch.randn(3, 5, 8)
    >>> torch.allclose(SplitAttention(joined)(x)[0], joined(x, x, x)[0], atol=1e-6)
    True
    """

    def __init__(self, joined: nn.MultiheadAttention) -> None:
        super().__init__()
        width, self.heads = joined.embed_dim, joined.num_heads
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = joined.out_proj
        for i, part in enumerate((self.q, self.k, self.v)):
            part.weight.data = joined.in_proj_weight.data[i * width : (i + 1) * width].clone()
            part.bias.data = joined.in_proj_bias.data[i * width : (i + 1) * width].clone()

    def forward(self, x: Tensor, *_: Tensor, attn_mask: Tensor | None = None, **__: object) -> tuple[Tensor, None]:
        """Tokens ``(B, T, W)`` to tokens; a mask, ``(T, T)`` or ``(B, 1, T, T)``, is added to scores."""
        return self.out(attended(self.q(x), self.k(x), self.v(x), self.heads, attn_mask)), None

    def extra_repr(self) -> str:
        """Heads, which no weight tells."""
        return f"heads={self.heads}"


def split_attention(blocks: nn.Module) -> nn.Module:
    """The same blocks, with their joined attentions split in place."""
    for block in blocks.children():
        if isinstance(joined := getattr(block, "attn", None), nn.MultiheadAttention):
            block.attn = SplitAttention(joined)
    return blocks


def attended(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """What queries ``(B, Q, W)`` find with keys and values ``(B, T, W)``, by heads: ``(B, Q, W)``."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, ., W / heads)
    mask = None if mask is None else mask.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
