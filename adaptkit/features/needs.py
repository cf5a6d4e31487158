"""What a method may ask of the cache: one tensor per image, named by a value."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from PIL import Image
from torch import Tensor

from adaptkit.io.errors import must_be
from adaptkit.towers.backbone import unit
from adaptkit.towers.preprocess import AUGMENTS

if TYPE_CHECKING:
    from adaptkit.towers.backbone import Backbone


HOW_READ = ("views", "plain_first", "fresh", "backbone")  # not what a stored row is; the tower's digest says which
PIXELS = ("3", "H", "W")  # axes of one image as it enters the tower


@dataclass(frozen=True, kw_only=True)
class Need:
    """One tensor per image. Equal needs are the same tensor: computed once, shared by every method that asks.

    Attributes:
        views: 0 for the plain image; V for V views, which adds an axis: ``(N, V, ...)``.
        plain_first: the first of the V views is the plain image, and V - 1 are random.
        augment: how random views are drawn, a name in `adaptkit.towers.preprocess.AUGMENTS`.
        fresh: draw the views anew at every reading, as most training scripts do, and never store them.
        backbone: "" for the task's own backbone, or another's name, e.g. ``"hf:facebook/dino-vitb16"``.
        stored: rows are kept on disk; what is not is computed at every reading.
        axes: of one row, as errors write them; as many as `shape` has.
    """

    views: int = 0
    plain_first: bool = False
    augment: str = "crop-flip"
    fresh: bool = False
    backbone: str = ""

    stored: ClassVar[bool] = True
    axes: ClassVar[tuple[str, ...]] = ("T", "D")

    def __post_init__(self) -> None:
        if self.augment not in AUGMENTS:
            raise ValueError(must_be("augment", AUGMENTS, self.augment))
        if self.views < 0 or (self.views == 0 and (self.plain_first or self.fresh)):
            raise ValueError(f"views must be at least {int(self.plain_first or self.fresh)}; got {self.views}")

    def table(self, random: bool) -> Need:
        """The need whose rows are on disk: one view, unread. All readings and all counts of views share it."""
        return replace(self, views=int(random), plain_first=False, augment=self.augment if random else "crop-flip")

    def describe(self) -> dict[str, object]:
        """What determines the bytes of a stored row, for the table's key."""
        own = {name: value for name, value in asdict(self).items() if name not in HOW_READ}
        return {"need": f"{type(self).__module__}.{type(self).__qualname__}", **own}

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """``(B, 3, H, W)`` pixels to ``(B, ...)`` rows as they are stored."""
        raise NotImplementedError

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """Of one row as `compute` gives it, without the leading axis. A need that does not say it computes one row."""
        blank = backbone.preprocess(Image.new("RGB", (backbone.preprocess.size,) * 2))
        with torch.no_grad():
            return tuple(self.compute(backbone, blank[None].to(backbone.device))[0].shape)

    def bytes(self, backbone: Backbone, dtype: str) -> int:
        """How many bytes one row takes, stored as `dtype`, e.g. ``"float16"``."""
        return math.prod(self.shape(backbone)) * getattr(torch, dtype).itemsize

    def read(self, rows: Tensor) -> Tensor:
        """Stored rows, ``(N, ...)`` or ``(N, V, ...)``, as the method wants them."""
        return rows


@dataclass(frozen=True, kw_only=True)
class Pooled(Need):
    """Image embedding, ``(D,)`` per image.

    Attributes:
        unit: scaled to unit norm, or as the tower gives it; one stored table serves both.
        projected: in the joint space, or before the visual projection.
    """

    unit: bool = True
    projected: bool = True

    axes: ClassVar[tuple[str, ...]] = ("D",)

    def table(self, random: bool) -> Need:
        """Raw embeddings are what is stored."""
        return replace(super().table(random), unit=False)  # type: ignore[call-arg]

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Raw embeddings, ``(B, D)``."""
        return backbone.encode_image(pixels, project=self.projected)

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """``(D,)``, or ``(W,)`` before the projection."""
        return (backbone.dim if self.projected else backbone.width["image"],)

    def read(self, rows: Tensor) -> Tensor:
        """Unit norm if asked for."""
        return unit(rows) if self.unit else rows


@dataclass(frozen=True, kw_only=True)
class Patches(Need):
    """Tokens leaving one block of the image tower: ``(T, W)`` per image, class token first, not projected."""

    block: int = -1

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Tokens, ``(B, T, W)``."""
        kept: list[Tensor] = []
        with backbone.taps({f"image.block.{self.block}": lambda _, out: kept.append(out) or out}):  # type: ignore[func-returns-value]
            backbone.encode_image(pixels)
        return kept[0]


@dataclass(frozen=True, kw_only=True)
class Pixels(Need):
    """The preprocessed image itself: ``(3, H, W)``. Never stored: for gradients through the image tower."""

    stored: ClassVar[bool] = False
    axes: ClassVar[tuple[str, ...]] = PIXELS

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """The pixels."""
        return pixels

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """``(3, H, W)``, a square of the size that the tower takes."""
        return 3, backbone.preprocess.size, backbone.preprocess.size
