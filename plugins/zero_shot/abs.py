"""ABS: boxes around what a second tower attends to, of the image and of its tokens, against generated sentences.

Source: Cai et al., From Local Details to Global Context: Advancing Vision-Language Models with Attention-Based
Selection, arXiv:2505.13233, and its released code, which all numbers are from.
Deviations: boxes are cut out of the preprocessed image, which the guide sees, too, not out of the original; each then
goes through the checkpoint's own resizing (of the shorter side, and the centre, or of both). Centres and sides are one
draw, the same for every image; the release averages ten. It takes at most fifty sentences a class.
"""

import math
from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Need, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Positive, Share, Size
from adaptkit.methods.ops import class_sums
from adaptkit.runs.loading import pick_backbone
from adaptkit.runs.plugins import pick

tower = cache(pick_backbone)


@dataclass(frozen=True, kw_only=True)
class Crops(Need):
    """Embeddings of `n` boxes of pixels, then of `n` boxes of the last block's input: ``(2 n, D)`` per image."""

    guide: str
    n: int
    top: int
    sides: tuple[float, float]

    def describe(self):
        return {**super().describe(), "guide": self.guide and tower(self.guide).fingerprint}

    def compute(self, backbone, pixels):
        backbone.require("image.block.-2")
        guide = tower(self.guide).to(pixels.device) if self.guide else backbone
        norms = pixels.new_tensor([(p.preprocess.mean, p.preprocess.std) for p in (backbone, guide)])[..., None, None]
        raw = F.interpolate(pixels * norms[0, 1] + norms[0, 0], guide.preprocess.size, mode="bicubic", antialias=True)
        weights = attention(guide, (raw - norms[1, 0]) / norms[1, 1])

        def crop(_, tokens):
            side = math.isqrt(tokens.shape[1])
            first, grid = tokens.split([tokens.shape[1] - side**2, side**2], 1)
            grids = cut(grid.transpose(1, 2).unflatten(2, (side, side)), self.boxes(weights, side, tokens=True))
            return torch.cat([first.repeat_interleave(self.n, 0), grids.flatten(2).transpose(1, 2)], 1)

        with backbone.taps({"image.block.-2": crop}):
            of_tokens = backbone.encode_image(pixels).unflatten(0, (-1, self.n))
        shown = backbone.preprocess.shown(self.boxes(weights, pixels.shape[-1]))
        of_pixels = [backbone.encode_image(cut(pixels[i, None], own[None], True)) for i, own in enumerate(shown)]
        return torch.cat([torch.stack(of_pixels), of_tokens], 1)

    def boxes(self, attention, size, tokens=False):
        """Left, top, right and bottom in a square of `size`, whole numbers: ``(B, P)`` to ``(B, n, 4)``."""
        draws = torch.rand(3, 2, self.n, generator=torch.Generator().manual_seed(0)).to(attention)[:, int(tokens)]
        best, side = attention.topk(min(self.top, attention.shape[1])), math.isqrt(attention.shape[1])
        below = (best.values / 0.03).softmax(-1).cumsum(-1)[:, :-1].contiguous()
        patch = best.indices.gather(1, torch.searchsorted(below, draws[0].repeat(len(below), 1)))[..., None]
        patch = torch.cat([patch % side, patch // side], -1)  # (B, n, 2)
        centre = patch * size // side if tokens else (2 * patch + 1) * size // (2 * side)
        low, high = (int(size * share) for share in self.sides)
        sides = low + (draws[[1, 2 - tokens]].T * (high - low + 1)).long()  # (n, 2); boxes of tokens are squares
        half = sides.clamp_min(2) // 2
        return torch.cat([centre - half, centre + half + tokens], -1).clamp(0, size)


class ABS(ZeroShot):
    """Compares crops around what a second tower attends to with generated sentences."""

    file: str = ""  # sentences by class, as the prompts `llm` read them; without, the task's are used
    guide: str = ""  # whose attention says where: the paper's is "hf:facebook/dino-vitb16"; "": the task's own backbone
    crops: Size = 50  # boxes of pixels, and as many of tokens
    top: Size = 20  # patches with most attention, which the boxes are drawn around
    sides: tuple[Share, Share] = (0.6, 0.9)  # of boxes, shares of the image's
    temperature: Positive = 0.03  # of cosines

    def needs(self):
        return {"crops": Crops(guide=self.guide, n=self.crops, top=self.top, sides=self.sides)}

    def fit(self, task):
        super().fit(task)
        if self.file:
            task = replace(task, prompts=pick("prompts", "llm")(task.classnames, None, file=self.file))
        self.rows = nn.Buffer(torch.cat(task.text_per_prompt))  # (S, D)
        self.classes = nn.Buffer(torch.repeat_interleave(torch.tensor([*map(len, task.prompts)])).to(self.rows.device))

    def forward(self, batch):
        each = (unit(crops) @ self.rows.T / self.temperature for crops in batch.crops)  # (2 n, S), one image at a time
        scores = [class_sums((cos.softmax(-1) * cos).sum(0), self.classes, len(self.text)) for cos in each]
        return torch.stack(scores)


def attention(guide, pixels):
    """What the class token attends to in the last block, a mean over heads: ``(B, P)``."""
    block, kept = f"image.block.{guide.depth['image'] - 1}", {}
    with guide.taps({f"{block}.{part}": lambda _, out, part=part: kept.setdefault(part, out) for part in "qk"}):
        guide.encode_image(pixels)
    width = next(m.head_dim for m in guide.points[block].module.modules() if hasattr(m, "head_dim"))
    q, k = (kept[part].unflatten(2, (-1, width)).transpose(1, 2) for part in "qk")  # (B, heads, T, width)
    weights = (q[:, :, :1] @ k.transpose(2, 3) / width**0.5).softmax(-1).mean(1)[:, 0, 1:]
    if math.isqrt(weights.shape[1]) ** 2 != weights.shape[1]:
        raise ValueError(f"guide must have a class token and a square of patches; got {weights.shape[1] + 1} tokens")
    return weights


def cut(maps, boxes, antialias=False):
    """Boxes ``(B, n, 4)`` of square maps ``(B, W, H, H)``, each resized to the whole: ``(B * n, W, H, H)``."""
    parts = [m[None, :, y:y2, x:x2] for m, own in zip(maps, boxes.tolist(), strict=True) for x, y, x2, y2 in own]
    return torch.cat([F.interpolate(part, maps.shape[-2:], mode="bicubic", antialias=antialias) for part in parts])


@hookimpl
def methods():
    return {"abs": ABS}
