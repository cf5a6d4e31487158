"""Which images nearly show the same, by two eyes: a tower's embedding, and the picture shrunk to a few pixels.

From which likeness on two images count as one is measured: a sample of the dataset's own pictures is compressed,
shrunk, darkened and lightened, and the threshold is what 19 of 20 of these copies reach. An embedding alone tells no
copy where all images look alike to the tower; a few pixels alone tell none where pictures are nearly blank.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from adaptkit.features.cache import FeatureCache
from adaptkit.features.items import Source
from adaptkit.features.needs import Pooled
from adaptkit.features.sources import Drawn
from adaptkit.io.files import digest
from adaptkit.io.pictures import decode
from adaptkit.report.looking.pictures import shrunk

SAMPLE = 48  # pictures that copies are made of
REACHED = 0.05  # of the made copies, left below the threshold
FLOOR = 0.99  # of pixels: tiny pictures change more when they are shrunk than others differ from them
ROOM = 2**24  # products held at a time


def compressed(picture: Image.Image) -> Image.Image:
    """As a JPEG of middling quality."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=60)
    return decode(file, "a copy as JPEG").convert("RGB")


def smaller(picture: Image.Image) -> Image.Image:
    """At three quarters of its width and height."""
    return picture.resize(tuple(max(1, 3 * n // 4) for n in picture.size), Image.Resampling.BICUBIC)  # type: ignore[arg-type]


COPYING: tuple[Callable[[Image.Image], Image.Image], ...] = (
    compressed,
    smaller,
    lambda picture: ImageEnhance.Brightness(picture).enhance(0.85),
    lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
)
"""What people and programs do to a picture without making it another one."""


@dataclass(frozen=True, eq=False)
class MadeCopies(Drawn):
    """Every change of some pictures, those of one picture after one another."""

    pictures: Sequence[Image.Image]
    name: str = "made copies"

    @property
    def labels(self) -> list[int]:
        """There are none."""
        return [0] * len(self)

    def __len__(self) -> int:
        return len(COPYING) * len(self.pictures)

    def key(self, i: int) -> str:
        """Digest of the changed pixels."""
        made = self.image(i)
        return digest(repr(made.size).encode() + made.tobytes())

    def image(self, i: int) -> Image.Image:
        """A changed picture."""
        picture, change = divmod(i, len(COPYING))
        return COPYING[change](self.pictures[picture])


@dataclass(frozen=True)
class Likeness:
    """From where on two images count as nearly the same: both must be reached.

    Attributes:
        cosine: of the embeddings.
        pixels: of the pictures shrunk to a few pixels.
    """

    cosine: float
    pixels: float


def measured_likeness(source: Source, rows: Sequence[int], x: Tensor, small: Tensor, cache: FeatureCache) -> Likeness:
    """The likeness that 19 of 20 made copies of some of a source's pictures reach.

    Args:
        source: of pictures.
        rows: those that can be read.
        x: their unit-norm embeddings, ``(N, D)``.
        small: the same pictures, shrunk, ``(N, 432)``.
        cache: of the embeddings.
    """
    some = np.unique(np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(int))
    copies = MadeCopies([source.open(rows[i])[1].convert("RGB") for i in some])
    made = cache.images(copies, Pooled(), torch.arange(len(copies))).to(x)
    shrunken = torch.from_numpy(np.stack([shrunk(copies.image(i)) for i in range(len(copies))])).to(small)
    of = torch.from_numpy(some.repeat(len(COPYING)))
    cosine, pixels = (made * x[of]).sum(1), (shrunken * small[of]).sum(1)
    reached = [float(one.double().quantile(REACHED)) for one in (cosine, pixels)]
    return Likeness(reached[0], max(reached[1], FLOOR))


def near_pairs(x: Tensor, small: Tensor, least: Likeness) -> list[tuple[int, int, float]]:
    """Pairs of images that nearly show the same, each once, with the cosine of their embeddings.

    No ``(N, N)`` tensor is made: rows are held against all that follow them, some at a time.

    Args:
        x: unit-norm embeddings, ``(N, D)``.
        small: the pictures, shrunk, ``(N, 432)``.
        least: the likeness that counts.

    >>> import torch
    >>> x = torch.eye(3)[[0, 1, 0, 2]]
    >>> near_pairs(x, x, Likeness(cosine=0.9, pixels=0.9))
    [(0, 2, 1.0)]
    """
    found, size = list[tuple[int, int, float]](), max(1, ROOM // max(1, len(x)))
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        cosine = x[rows] @ x[start:].T  # (n, N - start)
        alike = (cosine >= least.cosine) & (small[rows] @ small[start:].T >= least.pixels)
        one, other = alike.triu(1).nonzero(as_tuple=True)
        values = cosine[one, other].clamp_max(1)
        found += zip((one + start).tolist(), (other + start).tolist(), values.tolist(), strict=True)
    return found


def linked(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """For each of so many rows the first row that it hangs together with, through any number of pairs.

    >>> linked(5, [(1, 3), (3, 4)])
    [0, 1, 2, 1, 1]
    """
    first = list(range(count))

    def root(i: int) -> int:
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        return i

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        first[high] = low
    return [root(i) for i in range(count)]
