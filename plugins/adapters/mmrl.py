"""Learned tokens, one set for both towers, that join their upper blocks; known classes are answered by them, too.

Source: Guo and Gu, MMRL: Multi-Modal Representation Learning for Vision-Language Models, arXiv:2503.08497.
Deviations: the factor from cosine to logit is the checkpoint's; the authors write 100, OpenAI's. Float32 instead of
mixed precision. The two answers for known classes are mixed as logits, as in the authors' code. They choose ``penalty``
by dataset, from 0.01 to 7, and a width of 2048 for EuroSAT; with few shots they train for 50 epochs in batches of 32,
on ImageNet for 5. Blocks are counted alike in both towers, and a tower with fewer than ``end`` has tokens to its last.
What is known is told by names: where a task has a class that was not trained on, all are answered by the class token
alone.
"""

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Schedule, hookimpl, unit
from adaptkit.io.ranges import Share, Size, Weight
from adaptkit.methods.ops import as_queries
from adaptkit.methods.schedule import DASSL
from adaptkit.methods.tower_adapter import TowerAdapter


class MMRL(TowerAdapter):
    """Trains representation tokens that join the upper blocks of both towers."""

    n: Size = 5  # tokens in each tower, K
    width: Size = 512  # of the space that both towers' tokens are projected from, d_r
    start: Size = 6  # block before which they join, J, counted from 1
    end: Size = 12  # last block with tokens of its own; these flow on
    alpha: Share = 0.7  # weight of the class token's answer; the tokens' has the rest
    mixed: bool = True  # answer trained classes by both; the authors do not on other domains' images
    penalty: Weight = 1.0  # of leaving the frozen towers' embeddings, lambda
    std: Weight = 0.02  # of the tokens' random start
    augment: str = "crop-flip"
    schedule: Schedule = replace(DASSL, epochs=10, lr=1e-3, batch_size=4, optimizer="adamw")

    def fit(self, task):
        task.backbone.require("image.block.0", "image.norm", "text.positions")
        if self.start > self.end:
            raise ValueError(f"mmrl.start must be at most mmrl.end, {self.end}; got {self.start}")
        self.backbone, width, depth = task.backbone, task.backbone.width, task.backbone.depth
        ends = {tower: (min(self.start, d) - 1, min(self.end, d)) for tower, d in depth.items()}
        self.blocks = {tower: [*range(*both)] for tower, both in ends.items()}
        self.space = nn.Parameter(self.std * torch.randn(self.n, self.width))  # (n, d_r), R
        ones = {tower: nn.Linear(self.width, w) for tower, w in width.items()}  # F: equal at the start
        each = {t: nn.ModuleList(copy.deepcopy(one) for _ in self.blocks[t]) for t, one in ones.items()}
        self.projections = nn.ModuleDict(each)
        self.head = nn.Parameter(width["image"] ** -0.5 * torch.randn(width["image"], task.backbone.dim))  # P_v^r
        self.known = tuple(task.labelnames)
        frozen = task.encode([sentence for own in self.sentences(task) for sentence in own])
        self.register_buffer("frozen", unit(frozen).to(task.support.device))  # (C, D)
        self.retarget(task)

    def retarget(self, task):
        super().retarget(task)
        self.all_known = {*task.labelnames} <= {*self.known}

    def changed(self, tower, kept=None):
        """Taps by which the tokens join a tower, and leave behind its last block; `kept` receives what they became."""
        front = self.backbone.prefix if tower == "text" else 1  # tokens of the tower before them

        def join(tokens, own):
            own = own.expand(len(tokens), -1, -1).to(tokens.dtype)
            return torch.cat([tokens[:, :front], own, tokens[:, front:]], 1)

        def parted(tokens):
            return torch.cat([tokens[:, :front], tokens[:, front + self.n :]], 1), tokens[:, front : front + self.n]

        def enter(project, again):
            return lambda _, tokens: join(parted(tokens)[0] if again else tokens, project(self.space))

        def leave(_, tokens):
            rest, own = parted(tokens)
            if kept is not None:
                kept.append(own)
            return rest

        blocks, last = self.blocks[tower], f"{tower}.block.{self.backbone.depth[tower] - 1}"
        each = zip(blocks, self.projections[tower], strict=True)
        taps = {self.before(tower, block): enter(project, block > blocks[0]) for block, project in each}
        if tower == "text" and not blocks[0]:  # tokens have no position, and later words keep theirs
            taps["text.positions"] = lambda _, places: join(places, places.new_zeros(self.n, places.shape[-1]))
        return self.backbone.taps({**taps, last: leave})

    def before(self, tower, block):
        """The point whose output enters a block; of the text tower's first, its words."""
        if block:
            return f"{tower}.block.{block - 1}"
        return "image.prenorm" if tower == "image" and "image.prenorm" in self.backbone.points else f"{tower}.tokens"

    def both(self, pixels):
        """Unit-norm embeddings of images by the class token and by the learned tokens, ``(B, D)`` each."""
        kept = []
        with self.changed("image", kept):
            x = unit(self.backbone.encode_image(pixels))
        return x, unit(self.backbone.points["image.norm"](kept[0]).mean(1) @ self.head)

    def forward(self, batch):
        text, (x, own) = self.text(), self.both(batch.pixels)
        by_class, alpha = self.backbone.logits(x, text), self.alpha if self.mixed and self.all_known else 1.0
        return alpha * by_class + (1 - alpha) * self.backbone.logits(own, text)

    def loss(self, batch):
        one = as_queries(batch, self.needs())
        with torch.no_grad():
            frozen = unit(self.backbone.encode_image(one.pixels))  # (B, D)
        text, (x, own) = self.text(), self.both(one.pixels)
        wrong = [F.cross_entropy(self.backbone.logits(each, text), batch.targets) for each in (x, own)]
        away = 2 - (x * frozen).sum(-1).mean() - (text * self.frozen).sum(-1).mean()
        return self.alpha * wrong[0] + (1 - self.alpha) * wrong[1] + self.penalty * away


@hookimpl
def methods():
    return {"mmrl": MMRL}
