"""Text to video by concepts: embeddings are cut into slices, each compared by itself, weighted by a small network.

A sequence is pooled by the text; a loss keeps the slices of a matching pair alike, and different slices apart.

Source: Jin et al., Text-Video Retrieval with Disentangled Conceptualization and Set-to-Set Alignment, arXiv:2305.12218.
Deviations: the towers stay frozen. Frames that are not there have no part in the pooling's softmax; the release takes
them out after it, so that the weights of a short sequence do not sum to one. The loss between slices is a correlation,
divided by the channels of a slice; the release divides by the number of words of a text. ``as_released=True`` does both
its ways, with `words` for the number. The weighing network starts at equal weights of all slices, the release's at
random. Pairs of one label in a batch match each other.
"""

import torch
from torch import nn

from adaptkit import Schedule, SequenceRetriever, hookimpl
from adaptkit.io.ranges import Count, Positive, Size, Weight
from adaptkit.methods.retriever import finding_both_ways, matching


class DiCoSa(SequenceRetriever):
    """Concepts of text and video, matched one by one."""

    concepts: Size = 8
    temperature: Positive = 3.0  # of the pooling, by products of embeddings that are not scaled
    hidden: Count = 0  # width of the weighing network; 0 for four times a slice
    alpha: Weight = 0.01  # of each concept's likeness in the loss
    beta: Weight = 0.005  # of the likeness of different concepts
    as_released: bool = False
    words: Size = 32  # of a text, for `as_released`
    schedule: Schedule = Schedule(epochs=5, lr=1e-4, batch_size=128, optimizer="adamw")

    def build(self, task):
        if task.backbone.dim % self.concepts:
            raise ValueError(f"concepts must divide the width, {task.backbone.dim}; got {self.concepts}")
        width = task.backbone.dim // self.concepts
        hidden = self.hidden or 4 * width
        self.weigh = nn.Sequential(nn.Linear(2 * width, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        nn.init.zeros_(self.weigh[2].weight)
        nn.init.constant_(self.weigh[2].bias, 1 / self.concepts)

    def pooled(self, text, frames, present):
        like = torch.einsum("nd,gfd->ngf", text, frames) / self.temperature
        shown = torch.ones_like(present) if self.as_released else present
        weights = like.masked_fill(~shown, -torch.inf).softmax(-1) * present
        return torch.einsum("ngf,gfd->ngd", weights, frames)

    def matched(self, text, frames, present):
        return self.compared(text, self.pooled(text, frames, present))

    def compared(self, text, video):
        """Weighted cosines of slices, ``(N, G)``, of ``(N, D)`` and ``(N, G, D)``."""
        video = video.unflatten(-1, (self.concepts, -1))  # (N, G, K, d)
        text = text.unflatten(-1, (self.concepts, -1))[:, None].expand_as(video)
        like = nn.functional.cosine_similarity(text, video, -1)  # (N, G, K)
        return (self.weigh(torch.cat([text, video], -1))[..., 0] * like).sum(-1)

    def loss(self, batch):
        video = self.pooled(batch.text, batch.frames, batch.frames.any(-1))  # (B, B, D)
        found = self.backbone.logit_scale * self.compared(batch.text, video)
        return finding_both_ways(found, matching(batch)) + self.apart(batch.text, video)

    def apart(self, text, video):
        """How far slices of matching pairs are from being alike in themselves only."""
        one, other = (x.unflatten(-1, (self.concepts, -1)) for x in (text, video.diagonal().T))  # (B, K, d)
        released = self.as_released
        spreads = (x.std(-1, keepdim=True, correction=int(released)).clamp_min(1e-6) for x in (one, other))
        one, other = ((x - x.mean(-1, keepdim=True)) / spread for x, spread in zip((one, other), spreads, strict=True))
        like = (one @ other.transpose(1, 2)).mean(0) / (self.words if released else one.shape[-1])  # (K, K)
        same = like.diagonal()
        rest = like.square().sum() - same.square().sum()
        return self.alpha * (same - 1).square().sum() + self.beta * rest


@hookimpl
def methods():
    return {"di-co-sa": DiCoSa}
