"""Text to video where each text pools the frames anew, those that it is like.

Source: Gorti et al., X-Pool: Cross-Modal Language-Video Attention for Text-Video Retrieval, arXiv:2203.15086.
Deviations: the towers stay frozen; the release tunes them with a rate of a tenth of the head's. Frames that a shorter
sequence does not have are left out of the attention; the release knows no such frames. Pairs of one label in a batch
match each other, where the release counts each by itself. The other poolings are the paper's baselines, which train
nothing.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Schedule, SequenceRetriever, hookimpl, unit
from adaptkit.io.ranges import Positive, Share, Size


class XPool(SequenceRetriever):
    """Attention of a text to frames, which starts from their raw similarity."""

    pooling: Literal["learned", "average", "top", "attention"] = "learned"
    heads: Size = 1
    dropout: Share = 0.3
    k: Size = 3  # frames of `top`, the likest to the text
    temperature: Positive = 0.1  # of `attention`, by the cosine
    schedule: Schedule = Schedule(epochs=5, lr=1e-5, batch_size=32, optimizer="adamw", weight_decay=0.2)

    def build(self, task):
        if self.pooling != "learned":
            return
        width = task.backbone.dim
        if width % self.heads:
            raise ValueError(f"heads must divide the width of the embeddings, {width}; got {self.heads}")
        self.q, self.k_in, self.v, self.out, self.linear = (nn.Linear(width, width) for _ in range(5))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        for layer in (self.q, self.k_in, self.v, self.out, self.linear):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)

    def support_needs(self):
        return super().support_needs() if self.pooling == "learned" else {}

    def pooled(self, text, frames, present):
        if self.pooling == "learned":
            return self.attended(text, frames, present)
        text, frames = unit(text), unit(frames)
        if self.pooling == "average":
            return (frames * present[..., None]).sum(1) / present.sum(1, keepdim=True)
        like = torch.einsum("nd,gfd->ngf", text, frames).masked_fill(~present, -torch.inf)
        if self.pooling == "attention":
            return torch.einsum("ngf,gfd->ngd", (like / self.temperature).softmax(-1), frames)
        best = like.topk(min(self.k, frames.shape[1]), -1).indices
        chosen = torch.zeros_like(like).scatter(-1, best, 1.0) * present
        return torch.einsum("ngf,gfd->ngd", chosen, frames)

    def attended(self, text, frames, present):
        """Sequences as each text attends to them, ``(N, G, D)``."""
        text, frames = self.norm1(text), self.norm1(frames)
        q = self.q(text).unflatten(-1, (self.heads, -1))  # (N, H, D / H)
        k, v = (part(frames).unflatten(-1, (self.heads, -1)) for part in (self.k_in, self.v))  # (G, F, H, D / H)
        like = torch.einsum("nhd,gfhd->nghf", q, k) / q.shape[-1] ** 0.5
        weights = like.masked_fill(~present[:, None], -torch.inf).softmax(-1)
        seen = self.norm2(self.out(torch.einsum("nghf,gfhd->nghd", weights, v).flatten(-2)))
        return self.norm3(seen + F.dropout(self.linear(seen), self.dropout, self.training))


@hookimpl
def methods():
    return {"x-pool": XPool}
