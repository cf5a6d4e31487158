"""From an image to a normalised tensor: the plain crop of a checkpoint, and random views that are seeded by value.

Resizing is Pillow's, as in the code that made the checkpoints; other libraries' bicubic filters move features.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import lazy_loader
import numpy as np
from PIL import Image, ImageOps

from adaptkit.towers.augments import CHANGES
from adaptkit.towers.resize import crop_of_resized

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_loader.load("torch")  # a process that decodes only needs none, and starts in a tenth of the time

AUGMENTS: dict[str, tuple[float, float]] = {
    "crop-flip": (0.5, 1.0),
    "wide-crop-flip": (0.08, 1.0),
    "augmix": (0.08, 1.0),
    "jitter": (0.08, 1.0),
    "strong": (0.2, 1.0),
    "randaugment": (0.3, 1.0),
    "moco": (0.08, 1.0),
    "slight-crop": (0.9, 1.0),
}
"""Ways to draw a random view, with the range of the crop's share of the area.

``crop-flip`` is Tip-Adapter's and GDA's, ``wide-crop-flip`` CoOp's and TPT's, ``augmix`` the wide crop followed by the
mixture of Hendrycks et al., arXiv:1912.02781, that TPT and TDA use. ``slight-crop`` is CLIP's own in its training, the
only one that never mirrors. The others change more, ``moco`` as in Chen et al., arXiv:2104.02057: see `augments`.
"""

NO_AUGMENT = "none"
"""In place of one of them: no random views, the plain image."""

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
VERSION = 1  # of the arithmetic below; part of every stored feature's key


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a checkpoint wants its images.

    Attributes:
        size: side of the square that enters the tower, pixels.
        mean: per channel, in units of full intensity.
        std: likewise.
        fit: ``"crop"`` resizes the shortest side to `edge` and crops the centre; ``"squash"`` ignores the aspect ratio.
        edge: length of the shortest side before the crop, pixels; 0 means `size`.
        resample: Pillow's filter.
        centre: where the crop begins when an odd number of pixels is left over: half of them, ``"floored"`` as in
            `transformers`, or ``"rounded"`` to the even one as in torchvision, and so in OpenCLIP and `timm`.

    >>> from PIL import Image
    >>> import adaptkit as ak
    >>> preprocess = ak.Preprocess(size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    >>> preprocess(Image.new("RGB", (60, 40))).shape
    torch.Size([3, 32, 32])
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Literal["crop", "squash"] = "crop"
    edge: int = 0
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    centre: Literal["floored", "rounded"] = "floored"

    def __call__(self, image: Image.Image) -> Tensor:
        """The plain image, ``(3, size, size)``."""
        image, edge = rgb(image), self.edge or self.size
        if self.fit == "squash":
            return self.tensor(image.resize((self.size, self.size), FILTERS[self.resample]))
        short = min(image.size)
        width, height = image.width * edge // short, image.height * edge // short
        left, top = (self.half(side - self.size) for side in (width, height))
        box = (left, top, left + self.size, top + self.size)
        return self.tensor(crop_of_resized(image, (width, height), box, FILTERS[self.resample]))

    def half(self, over: int) -> int:
        """Where a crop begins along a side that has so many pixels more."""
        return over // 2 if self.centre == "floored" else round(over / 2)

    def view(self, image: Image.Image, augment: str, seed: str) -> Tensor:
        """One random view, ``(3, size, size)``; the same `seed` gives the same view in any batch and process."""
        rng = random.Random(int.from_bytes(hashlib.blake2b(f"{seed}/{augment}".encode(), digest_size=8).digest()))
        box = random_box(image.width, image.height, AUGMENTS[augment], rng)
        out = rgb(image).resize((self.size, self.size), FILTERS[self.resample], box=box)
        if augment != "slight-crop" and rng.random() < 0.5:
            out = ImageOps.mirror(out)
        if augment in CHANGES:
            out = CHANGES[augment](out, rng)
        return augmix(out, self.tensor, rng) if augment == "augmix" else self.tensor(out)

    def shown(self, boxes: Tensor) -> Tensor:
        """The part of pictures that enters the tower: all, or a square in the middle.

        Args:
            boxes: left, top, right and bottom of each, ``(..., 4)``, pixels, whole numbers.
        """
        start, end = boxes.split(2, -1)
        sides = end - start
        if self.fit == "crop":
            short = (sides.amin(-1, keepdim=True) * self.size // (self.edge or self.size)).clamp_min(1)
            start, sides = start + (sides - short) // 2, short
        return torch.cat([start, start + sides], -1)

    def tensor(self, image: Image.Image) -> Tensor:
        """An image of the right size, ``(3, size, size)``, normalised."""
        pixels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1) / 255
        return (pixels - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]

    def describe(self) -> dict[str, object]:
        """What determines the pixels, for a feature's key."""
        told = asdict(self)
        if self.centre == "floored":  # keys from before there was another
            del told["centre"]
        return {**told, "version": VERSION}


def rgb(image: Image.Image) -> Image.Image:
    """An image of any mode in three channels; what is transparent is laid over white, as `transformers` does."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def random_box(width: int, height: int, area: tuple[float, float], rng: random.Random) -> tuple[int, int, int, int]:
    """A crop with a share of the area drawn from `area` and an aspect ratio between 3/4 and 4/3."""
    for _ in range(10):
        target = width * height * rng.uniform(*area)
        ratio = (3 / 4) * (16 / 9) ** rng.random()  # uniform in the logarithm
        w, h = round((target * ratio) ** 0.5), round((target / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.random() * (width - w + 1)), int(rng.random() * (height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))  # too oblong: the largest that fits
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def augmix(image: Image.Image, tensor: Callable[[Image.Image], Tensor], rng: random.Random, width: int = 3) -> Tensor:
    """Mix an image with `width` chains of one to three simple operations each, ``(3, H, W)``, normalised."""
    weights = [rng.gammavariate(1, 1) for _ in range(width)]  # normalised, a draw from Dirichlet(1, 1, 1)
    keep = rng.betavariate(1, 1)
    mixed = torch.zeros_like(tensor(image))
    for weight in weights:
        chain = image
        for _ in range(1 + int(rng.random() * 3)):
            chain = OPERATIONS[int(rng.random() * len(OPERATIONS))](chain, rng)
        mixed += weight / sum(weights) * tensor(chain)
    return keep * tensor(image) + (1 - keep) * mixed


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)


def _signed(rng: random.Random, largest: float) -> float:
    return rng.uniform(0.1, 1.0) * largest * (1 if rng.random() < 0.5 else -1)


OPERATIONS: tuple[Callable[[Image.Image, random.Random], Image.Image], ...] = (
    lambda image, rng: ImageOps.autocontrast(image),
    lambda image, rng: ImageOps.equalize(image),
    lambda image, rng: ImageOps.posterize(image, 4 - int(rng.random() * 1.2)),
    lambda image, rng: image.rotate(_signed(rng, 10), resample=Image.Resampling.BILINEAR),
    lambda image, rng: ImageOps.solarize(image, 256 - int(rng.uniform(0.1, 1.0) * 85)),
    lambda image, rng: _affine(image, (1, _signed(rng, 0.1), 0, 0, 1, 0)),
    lambda image, rng: _affine(image, (1, 0, 0, _signed(rng, 0.1), 1, 0)),
    lambda image, rng: _affine(image, (1, 0, _signed(rng, image.width / 10), 0, 1, 0)),
    lambda image, rng: _affine(image, (1, 0, 0, 0, 1, _signed(rng, image.height / 10))),
)
