"""Low-rank updates of the attention weights of both towers, trained with the class sentences encoded at every step.

Source: Zanella and Ben Ayed, Low-Rank Few-Shot Adaptation of Vision-Language Models, arXiv:2405.18541.
Deviations: the factor from cosine to logit is the checkpoint's; the authors write 100, OpenAI's. Without dropout their
release cuts the gradient that should reach lower blocks through the low-rank branch (merged for the forward pass, taken
back before the backward pass); here it is whole. Float32 instead of half precision. With ``encoder: text`` ten cached
views stand for fresh ones. Positions are the release's for 12 blocks (of 24 it knows halves alone), else their shares.
"""

from typing import Literal

from torch import nn

from adaptkit import Pooled, Schedule, hookimpl
from adaptkit.io.ranges import Share, Size, Weight
from adaptkit.methods.low_rank import low_rank, low_rank_start
from adaptkit.methods.tower_adapter import TowerAdapter


class CLIPLoRA(TowerAdapter):
    """Trains low-rank updates of the attention weights of both towers."""

    rank: Size = 2  # r of W x + alpha / sqrt(r) * B A x at every map, where A and B are trained
    alpha: Weight = 1.0  # the update is scaled by alpha / sqrt(rank)
    dropout: Share = 0.25  # of what enters the low-rank branch, in training
    encoder: Literal["both", "vision", "text"] = "both"
    maps: tuple[Literal["q", "k", "v", "out", "fc1", "fc2"], ...] = ("q", "k", "v")
    position: Literal["all", "bottom", "mid", "up", "half-bottom", "half-up", "top3"] = "all"  # of the blocks
    schedule: Schedule = Schedule(steps_per_shot=500, lr=2e-4, weight_decay=1e-2, final_lr=1e-6)

    def needs(self):
        return {"x": Pooled()} if self.encoder == "text" else super().needs()

    def support_needs(self):
        return {"views": Pooled(views=10, augment=self.augment)} if self.encoder == "text" else super().support_needs()

    def fit(self, task):
        self.backbone = task.backbone
        if self.encoder != "text" and "image.block.0" not in task.backbone.points:
            raise ValueError(f"encoder must be 'text' where the image tower is no transformer; got {self.encoder!r}")
        towers = {"both": ("image", "text"), "vision": ("image",), "text": ("text",)}[self.encoder]
        blocks = [f"{tower}.block.{i}" for tower in towers for i in chosen(self.position, task.backbone.depth[tower])]
        self.names = [f"{block}.{name}" for block in blocks for name in self.maps]
        task.backbone.require(*self.names)
        self.a, self.b = low_rank_start(task.backbone, self.names, self.rank)
        self.drop = nn.Dropout(self.dropout)
        self.retarget(task)

    def learned(self, tower):
        return [] if self.encoder == "vision" else super().learned(tower)

    def changed(self, tower):
        updates = zip(self.names, self.a, self.b, strict=True)
        own = {name: (a, b) for name, a, b in updates if name.startswith(tower)}
        return low_rank(self.backbone, own, self.alpha / self.rank**0.5, self.drop if self.training else None)

    def forward(self, batch):
        text = self.text()
        return self.backbone.logits(batch.x if self.encoder == "text" else self.images(batch.pixels), text)


def chosen(position, depth):
    """Blocks of a tower, one at least: all, thirds or halves of them from below, or the last three."""
    third, half, mid = max(1, depth // 3), -(-depth // 2), min(max(1, depth // 3), depth - 1)
    ends = {"bottom": (0, third), "mid": (mid, max(mid + 1, depth - third)), "up": (depth - third, depth)}
    ends |= {"half-bottom": (0, half), "half-up": (depth - half, depth), "top3": (max(0, depth - 3), depth)}
    return range(*ends.get(position, (0, depth)))


@hookimpl
def methods():
    return {"clip-lora": CLIPLoRA}
