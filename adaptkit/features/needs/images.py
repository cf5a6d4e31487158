"""What is asked of an image as a whole: its embedding, the tokens of one block, its pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from adaptkit.features.needs.need import PIXELS, Need
from adaptkit.towers.backbone import unit

if TYPE_CHECKING:
    from adaptkit.towers.backbone import Backbone


@dataclass(frozen=True, kw_only=True)
class Pooled(Need):
    """Image embedding, ``(D,)`` per image.

    Attributes:
        unit: scaled to unit norm, or as the tower gives it; one stored table serves both.
        projected: in the joint space, ``(D,)``, or before the visual projection, ``(W,)``.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> task.support.bind({"views": ak.Pooled(views=4, augment="wide-crop-flip")}).views.shape
    torch.Size([10, 4, 16])
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
        return (backbone.dim if self.projected else backbone.pooled_width or backbone.width["image"],)

    def read(self, rows: Tensor) -> Tensor:
        """Unit norm if asked for."""
        return unit(rows) if self.unit else rows


@dataclass(frozen=True, kw_only=True)
class Patches(Need):
    """Tokens leaving one block of the image tower: ``(T, W)`` per image, class token and registers first, raw.

    Attributes:
        block: from 0 and, negative, from the end.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> test[:3].bind({"tokens": ak.Patches(block=-1)}).tokens.shape
    torch.Size([3, 17, 32])
    """

    block: int = -1

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Tokens, ``(B, T, W)``."""
        backbone.require("image.block.-1")
        kept: list[Tensor] = []
        with backbone.taps({f"image.block.{self.block}": lambda _, out: kept.append(out) or out}):  # type: ignore[func-returns-value]
            backbone.encode_image(pixels)
        return kept[0]


@dataclass(frozen=True, kw_only=True)
class Pixels(Need):
    """The preprocessed image itself: ``(3, H, W)``. Never stored: for gradients through the image tower.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> test[:3].bind({"pixels": ak.Pixels()}).pixels.shape
    torch.Size([3, 3, 32, 32])
    """

    stored: ClassVar[bool] = False
    axes: ClassVar[tuple[str, ...]] = PIXELS

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """The pixels."""
        return pixels

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """``(3, H, W)``, a square of the size that the tower takes."""
        return 3, backbone.preprocess.size, backbone.preprocess.size
