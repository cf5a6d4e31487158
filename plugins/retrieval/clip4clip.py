"""Text to video by the mean of frames, which may first look at each other: in a transformer, or in a recurrent network.

Source: Luo et al., CLIP4Clip: An Empirical Study of CLIP for End to End Video Clip Retrieval, arXiv:2104.08860.
Deviations: the towers stay frozen, and heads are trained on features. Position embeddings and blocks start at random,
where the release copies them from CLIP's text tower; the last layer of each block starts at zero, so that training
starts from the mean of frames. The head that reads words and frames together ("tight") is left out. Pairs of one label
in a batch match each other, where the release counts each by itself.
"""

from typing import Literal

import torch
from torch import nn

from adaptkit import Schedule, SequenceRetriever, hookimpl, unit
from adaptkit.io.ranges import Count, Size
from adaptkit.methods.blocks import TokenBlock, fitting_heads


class Clip4Clip(SequenceRetriever):
    """The mean of normalised frames, after a head that is trained on their order."""

    head: Literal["mean", "transformer", "lstm"] = "transformer"
    layers: Count = 4
    heads: Size = 8
    positions: Size = 77  # frames whose order can be told, at most
    schedule: Schedule = Schedule(epochs=5, lr=1e-4, batch_size=128, optimizer="adamw")

    def build(self, task):
        width = task.backbone.dim
        if self.head == "transformer":
            self.places = nn.Embedding(self.positions, width)
            how = {"heads": fitting_heads(width, self.heads), "hidden": 4 * width, "eps": 1e-12}
            made = [TokenBlock(width, **how) for _ in range(self.layers)]
            self.blocks = nn.ModuleList(made)
            for block in self.blocks:
                nn.init.zeros_(block.fc2.weight)
            nn.init.normal_(self.places.weight, std=0.01)
        if self.head == "lstm":
            self.reads, self.recalls = nn.Linear(width, 4 * width), nn.Linear(width, 4 * width)

    def pooled(self, text, frames, present):
        seen = frames
        if self.head == "transformer":
            if frames.shape[1] > self.positions:
                raise ValueError(f"positions must be at least the frames, {frames.shape[1]}; got {self.positions}")
            seen = frames + self.places.weight[: frames.shape[1]]
            for block in self.blocks:
                seen = block(seen, ~present)
            seen = seen + frames
        if self.head == "lstm":
            seen = self.recurrent(frames) + frames
        seen = unit(seen) * present[..., None]
        return unit(seen.sum(1) / present.sum(1, keepdim=True).clamp_min(1))

    def forward(self, batch):
        return self.logits(batch, self)  # sequences do not depend on the text: they are pooled once for all of a batch

    def recurrent(self, frames):
        """States of a long short-term memory after each frame, ``(G, F, D)``; padding comes last and reaches none."""
        state = cell = torch.zeros_like(frames[:, 0])
        states = []
        for frame in frames.unbind(1):
            gates = (self.reads(frame) + self.recalls(state)).chunk(4, -1)
            cell = gates[1].sigmoid() * cell + gates[0].sigmoid() * gates[2].tanh()
            state = gates[3].sigmoid() * cell.tanh()
            states.append(state)
        return torch.stack(states, 1)


@hookimpl
def methods():
    return {"clip4clip": Clip4Clip}
