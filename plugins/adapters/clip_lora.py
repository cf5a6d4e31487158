"""Low-rank updates of the attention weights of both towers, trained with the class sentences encoded at every step.

Source: Zanella and Ben Ayed, Low-Rank Few-Shot Adaptation of Vision-Language Models, arXiv:2405.18541.
Deviations: the factor from cosine to logit is the checkpoint's; the authors write 100, OpenAI's. Without dropout their
release cuts the gradient that should reach lower blocks through the low-rank branch (merged for the forward pass, taken
back before the backward pass); here it is whole. Float32 instead of half precision. With ``encoder: text`` ten cached
views stand for fresh ones. Positions are the release's for 12 blocks (of 24 it knows halves alone), else their shares.
"""

from typing import Literal

import torch
from torch import nn

from adaptkit import Method, Pixels, Pooled, Schedule, hookimpl, unit
from adaptkit.io.ranges import Share, Size, Weight
from adaptkit.io.text import template
from adaptkit.towers.once import Once
from adaptkit.towers.prompting import chunked
from adaptkit.towers.reading import read_whole


class CLIPLoRA(Method):
    """Trains low-rank updates of the attention weights of both towers."""

    rank: Size = 2  # r of W x + alpha / sqrt(r) * B A x at every map, where A and B are trained
    alpha: Weight = 1.0  # the update is scaled by alpha / sqrt(rank)
    dropout: Share = 0.25  # of what enters the low-rank branch, in training
    encoder: Literal["both", "vision", "text"] = "both"
    maps: tuple[Literal["q", "k", "v", "out", "fc1", "fc2"], ...] = ("q", "k", "v")
    position: Literal["all", "bottom", "mid", "up", "half-bottom", "half-up", "top3"] = "all"  # of the blocks
    template: str = ""  # a class's sentence, its name in place of {}; without, the first of the task's
    chunk: Size = 256  # sentences encoded at a time
    schedule: Schedule = Schedule(steps_per_shot=500, lr=2e-4, weight_decay=1e-2, final_lr=1e-6)

    def needs(self):
        return {"x": Pooled()} if self.encoder == "text" else {"pixels": Pixels()}

    def support_needs(self):
        if self.encoder == "text":
            return {"views": Pooled(views=10, augment="wide-crop-flip")}
        return {"views": Pixels(views=1, augment="wide-crop-flip", fresh=True)}

    def fit(self, task):
        self.backbone = task.backbone
        if self.encoder != "text" and "image.block.0" not in task.backbone.points:
            raise ValueError(f"encoder must be 'text' where the image tower is no transformer; got {self.encoder!r}")
        towers = {"both": ("image", "text"), "vision": ("image",), "text": ("text",)}[self.encoder]
        blocks = [f"{tower}.block.{i}" for tower in towers for i in chosen(self.position, task.backbone.depth[tower])]
        self.names = [f"{block}.{name}" for block in blocks for name in self.maps]
        task.backbone.require(*self.names)
        shapes = [task.backbone.weight(name).shape for name in self.names]
        self.a = nn.ParameterList(torch.empty(self.rank, width) for _, width in shapes)
        self.b = nn.ParameterList(torch.zeros(out, self.rank) for out, _ in shapes)
        for a in self.a:
            nn.init.kaiming_uniform_(a, a=5**0.5)
        self.drop = nn.Dropout(self.dropout)
        self.merged = [Once() for _ in self.names]
        self.retarget(task)

    def retarget(self, task):
        self.once = Once()
        names = [name.replace("_", " ") for name in task.classnames]
        given = self.template and template(self.template, "clip-lora.template")
        sentences = [given.replace("{}", n) if given else s[0] for n, s in zip(names, task.prompts, strict=True)]
        if self.encoder != "vision":
            read_whole(task.backbone, [[sentence] for sentence in sentences])
            self.tokens = task.backbone.tokenize(sentences)
        else:
            self.register_buffer("fixed", unit(task.encode(sentences)).to(task.support.device))  # (C, D)

    def updated(self, tower):
        """A block in which a tower has its updates: merged into its weights, or beside them where dropout acts."""
        scale, updates = self.alpha / self.rank**0.5, zip(self.names, self.a, self.b, self.merged, strict=True)
        own = [(name, a, b, once) for name, a, b, once in updates if name.startswith(tower)]
        if self.training:
            added = {n: lambda x, out, a=a, b=b: out + scale * (self.drop(x) @ a.T @ b.T) for n, a, b, _ in own}
            return self.backbone.taps(added)
        frozen, alpha = self.backbone.weight, torch.tensor(self.alpha)
        summed = {n: once(lambda n=n, a=a, b=b: frozen(n) + scale * b @ a, alpha, a, b) for n, a, b, once in own}
        return self.backbone.weights(summed)

    def text(self):
        def encode(rows):
            with self.updated("text"):
                return unit(self.backbone.encode_text({name: value[rows] for name, value in self.tokens.items()}))

        def every():
            return chunked(encode, torch.arange(len(self.tokens["input_ids"])), self.chunk)

        if self.encoder == "vision":
            return self.fixed
        if self.training:
            return every()  # dropout is never remembered
        return self.once(every, torch.tensor(self.alpha), *self.parameters())

    def forward(self, batch):
        text = self.text()
        if self.encoder == "text":
            return self.backbone.logits(batch.x, text)
        with self.updated("image"):
            images = unit(self.backbone.encode_image(batch.pixels))
        return self.backbone.logits(images, text)


def chosen(position, depth):
    """Blocks of a tower, one at least: all, thirds or halves of them from below, or the last three."""
    third, half, mid = max(1, depth // 3), -(-depth // 2), min(max(1, depth // 3), depth - 1)
    ends = {"bottom": (0, third), "mid": (mid, max(mid + 1, depth - third)), "up": (depth - third, depth)}
    ends |= {"half-bottom": (0, half), "half-up": (depth - half, depth), "top3": (max(0, depth - 3), depth)}
    return range(*ends.get(position, (0, depth)))


@hookimpl
def methods():
    return {"clip-lora": CLIPLoRA}
