"""CoCoOp's shifted context, made of an image's token statistics in all blocks, and held still under augmentation.

Source: Singha et al., GOPro: Generate and Optimize Prompts in CLIP using Self-Supervised Learning, arXiv:2308.11605.
Deviations: each image's prompts are compared with those of its own AugMix view; in the release all are compared with
views of the batch's first image: ``as_released``. Augmented views are made of the image; the release makes them of the
normalised crop, as a picture, and normalises MoCo's otherwise, whose crops here are a fifth of the image at least. Ten
cached views of each kind stand for fresh ones. Float32 instead of float16. B * C sentences, thrice that in training.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Method, Need, Pooled, Prompts, Schedule, hookimpl, unit
from adaptkit.io.ranges import Positive, Size, Views, Weight
from adaptkit.methods.ops import as_queries, pick_views
from adaptkit.methods.schedule import DASSL

TINY = 2.3e-8  # added to a sum of squares, as in the release


@dataclass(frozen=True, kw_only=True)
class Statistics(Need):
    """Mean and deviation over the tokens that leave each block of the image tower, ``(K, 2, W)``."""

    axes: ClassVar[tuple[str, ...]] = ("K", "2", "W")
    dtype: ClassVar[str] = "float32"

    def compute(self, backbone, pixels):
        backbone.require("image.block.0")
        rows = []

        def keep(_, out):
            rows.append(torch.stack([out.mean(1), out.var(1, correction=0).add(TINY / out.shape[1]).sqrt()], 1))
            return out

        with backbone.taps({f"image.block.{i}": keep for i in range(backbone.depth["image"])}):
            backbone.encode_image(pixels)
        return torch.stack(rows, 1)  # (B, K, 2, W)

    def shape(self, backbone):
        return backbone.depth["image"], 2, backbone.width["image"]


class GOPro(Method):
    """Trained context words, shifted by an image's tokens, not by augmenting it."""

    n: Size = 4  # context words, at most those of `init`
    init: str = "a photo of a"  # words to start from; "" for a random start
    std: Weight = 0.02  # of the random start
    contrast: Weight = 0.1  # weight of the loss that tells views of an image from those of others
    tau: Positive = 0.1  # temperature of that loss
    steadiness: Weight = 1.0  # weight of the loss between prompts of an image and of its augmented views
    views: Views = 10  # cached random views of each support image and kind; one is drawn at every step
    as_released: bool = False  # compare all prompts with those of AugMix views of the batch's first image
    schedule: Schedule = replace(DASSL, batch_size=4)

    tunable = ("context",)

    def needs(self):
        return {"x": Pooled(), "statistics": Statistics()}

    def support_needs(self):
        crop, moco, augmix = ({"views": self.views, "augment": how} for how in ("wide-crop-flip", "moco", "augmix"))
        own = {"crop_x": Pooled(**crop), "crop_statistics": Statistics(**crop), "moco_x": Pooled(**moco)}
        return {**own, "moco_statistics": Statistics(**moco), "augmix_statistics": Statistics(**augmix)}

    def fit(self, task):
        self.backbone, width, dim = task.backbone, task.backbone.width, task.backbone.dim
        self.prompts = Prompts(task.backbone, task.classnames, n=self.n, init=self.init)
        self.context = nn.Parameter(self.prompts.start(self.std))  # (n, W)
        maps = [[nn.Linear(width["image"], width["text"]) for _ in range(task.backbone.depth["image"])] for _ in "12"]
        self.style, self.content = map(nn.ModuleList, maps)
        self.mix = nn.Linear(len(self.style), 1)  # rho, over the blocks
        self.projector = nn.Sequential(nn.Linear(dim, dim), nn.BatchNorm1d(dim))

    def retarget(self, task):
        self.prompts = self.prompts.of(task.classnames)

    def texts(self, statistics):  # unit-norm class embeddings for each image, (B, C, D)
        mean, both = statistics[:, :, 0], statistics.mean(2)  # (B, K, W)
        style = torch.stack([layer(both[:, i]) for i, layer in enumerate(self.style)], 2)  # (B, W', K)
        content = torch.stack([layer(mean[:, i]) for i, layer in enumerate(self.content)], 2)
        shift = self.mix((style + content) / 2).mT  # (B, 1, W')
        return unit(self.prompts.encode_each(self.context + shift))

    def forward(self, batch):
        at_once = max(1, self.prompts.chunk // len(self.prompts.places))  # images
        parts = zip(batch.x.split(at_once), batch.statistics.split(at_once), strict=True)
        return torch.cat([self.backbone.logits(x, self.texts(own)) for x, own in parts])

    def parts(self, batch):
        """Cross-entropy, what prompts move by under MoCo's and AugMix's augmentations, and the contrastive loss."""
        crop, drawn = as_queries(batch, self.needs()), pick_views(batch.moco_x)
        x, moco, text = crop.x, batch.moco_x[drawn], self.texts(crop.statistics)
        rows, view = pick_views(batch.augmix_statistics)
        augmix = batch.augmix_statistics[torch.zeros_like(rows) if self.as_released else rows, view]
        moved = [F.mse_loss(text, self.texts(own)) for own in (batch.moco_statistics[drawn], augmix)]
        return F.cross_entropy(self.backbone.logits(x, text), batch.labels), *moved, self.contrastive(x, moco)

    def contrastive(self, x, other):
        """SimCLR's loss: each view finds the other of its image among all others; of one image it is 0."""
        if len(x) < 2:
            return x.new_zeros(())
        a, b = unit(self.projector(x)), unit(self.projector(other))
        own, itself = torch.arange(len(x), device=x.device), torch.diag(torch.full_like(a[:, 0], torch.inf))
        found = [torch.cat([i @ j.T, i @ i.T - itself], 1) / self.tau for i, j in ((a, b), (b, a))]
        return sum(F.cross_entropy(logits, own) for logits in found) / 2

    def loss(self, batch):
        answers, moco, augmix, contrast = self.parts(batch)
        return answers + self.steadiness * (moco + augmix) + self.contrast * contrast


@hookimpl
def methods():
    return {"gopro": GOPro}
