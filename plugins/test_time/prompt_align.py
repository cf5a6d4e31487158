"""Trained prompts of both towers, tuned for each image anew until its views' tokens are spread as in known images.

Source: Abdul Samadh et al., Align Your Prompts: Test-Time Prompting with Distribution Alignment for Zero-Shot
Generalization, arXiv:2311.01459.
Deviations: statistics of tokens come from the support images (``proxy: pool`` takes the unlabelled training images), as
the tower sees them under the trained prompts, when the method adapts; they are kept with it, stay when it answers for
other classes, and no test image enters them. The authors take all of ImageNet's training images, on 16 shots of which
they train MaPLe for two epochs, which are few elsewhere. Distances are means over tokens and channels, as in the
release, which are what the weight is made for. The release halves them and leaves out the last of the blocks while it
divides by all: ``as_released``. It also lets views for alignment replace the surest from the second step on, of which
there is one. The rate is for other datasets; for shifted ImageNets the release takes 4e-2. Float32; views are drawn
once.
"""

from contextlib import contextmanager
from dataclasses import field
from typing import Literal

import torch

from adaptkit import Method, hookimpl, method
from adaptkit.io.ranges import Count, Share, Size, Weight
from adaptkit.methods.episodes import Answer, Episodes

CROSS = {"epochs": 2, "lr": 2.6e-3}  # as MaPLe is trained for other datasets


class PromptAlign(Episodes):
    """Tunes trained prompts, for each image anew, till views agree and look familiar.

    Adds to TPT's entropy how far means and variances of tokens in the image tower's first blocks are from known ones.
    """

    base: Method = field(default_factory=lambda: method("maple", depth=3, schedule=CROSS))  # whose prompts are tuned
    proxy: Literal["support", "pool"] = "support"  # images that give the known statistics
    weight: Weight = 100.0  # of the alignment, beta
    align_keep: Share = 0.1  # share of the views whose tokens are aligned, those of lowest entropy
    lowest: Count = 0  # of the blocks that are aligned
    layers: Size = 3  # how many they are
    lr: Weight = 5e-4  # of AdamW
    as_released: bool = False

    def support_needs(self):
        return self.base.needs() if self.proxy == "support" else {}

    def pool_needs(self):
        return self.base.needs() if self.proxy == "pool" else {}

    def fit(self, task):
        super().fit(task)
        images = task.support if self.proxy == "support" else task.pool
        if images is None or not len(images):
            raise ValueError(f"proxy must name images to take statistics from; got {self.proxy!r}, of which are none")
        depth = task.backbone.depth.get("image", 0)
        task.backbone.require(f"image.block.{self.lowest}")
        self.blocks = list(range(self.lowest, min(self.lowest + self.layers, depth)))
        total, squares, images = 0, 0, images.blind().bind(self.base.needs())
        for i in range(0, len(images), 32):
            part = images[i : i + 32].load()  # embeddings, if the base reads any, are not made under the taps
            with torch.no_grad(), self.tapped() as kept:
                self.base(part)
            if len(kept) != len(self.blocks):
                name = type(self.base).__name__
                raise ValueError(f"base must run the image tower once to align its tokens, e.g. maple; got {name}")
            tokens = torch.stack(kept).double()  # (L, B, T, W)
            total, squares = total + tokens.sum(1), squares + tokens.square().sum(1)
        mean = total / len(images)
        self.register_buffer("source_mean", mean.float())  # (L, T, W)
        self.register_buffer("source_variance", (squares / len(images) - mean.square()).clamp_min(0).float())

    def retarget(self, task):
        """The statistics stay, and so do the towers, which are the base's: it answers through its own."""

    @contextmanager
    def tapped(self):
        """A block in which tokens that leave the aligned blocks are kept, before the base changes them."""
        kept = []
        with self.backbone.taps({f"image.block.{i}": lambda _, out: kept.append(out) or out for i in self.blocks}):
            yield kept

    def see(self, state, seen):
        with self.tapped() as kept:
            answer = super().see(state, seen)
        return Answer(answer.logits, answer.text, [tokens[None] for tokens in kept])

    def confident(self, logits):
        return self.surest(logits, max(self.keep, self.align_keep))

    def objective(self, answer, seen):
        agreeing, aligned = (max(1, int(share * self.views)) for share in (self.keep, self.align_keep))
        return self.disagreement(answer.logits[:, :agreeing]) + self.weight * self.distance(answer.blocks, aligned)

    def distance(self, blocks, count):
        """How far token statistics of the first views are from the known ones, ``(B, K, T, W)`` each to ``(B,)``."""
        tokens = torch.stack(blocks, 1)[:, :, :count]  # (B, L, K, T, W)
        mean, variance = tokens.mean(2), tokens.var(2, correction=0)
        off = (mean - self.source_mean).abs() + (variance - self.source_variance).abs()
        each = off.mean((-2, -1))  # (B, L)
        return each[:, :-1].sum(1) / each.shape[1] / 2 if self.as_released else each.mean(1)


@hookimpl
def methods():
    return {"prompt-align": PromptAlign}
