"""The end of the image tower, trained: what lies below stays frozen, and its tokens are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from adaptkit.features.needs import Need
from adaptkit.methods.tuned_weights import TunedWeights

if TYPE_CHECKING:
    from adaptkit.towers.backbone import Backbone

LAST_BLOCK, POOL = "image.block.-1", "image.head"
AFTER = ("image.norm.", "image.head.", "image.projection.")


@dataclass(frozen=True, kw_only=True)
class Entering(Need):
    """Tokens that enter a point of the image tower: ``(T, W)`` per image.

    Attributes:
        point: e.g. ``"image.block.-1"``.

    >>> import adaptkit as ak
    >>> from adaptkit.methods.tower_end import Entering
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> test[:3].bind({"tokens": Entering()}).tokens.shape
    torch.Size([3, 17, 32])
    """

    point: str = LAST_BLOCK

    axes: ClassVar[tuple[str, ...]] = ("T", "W")

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Tokens, ``(B, T, W)``."""
        backbone.require(self.point)
        kept: list[Tensor] = []
        with backbone.taps({self.point: lambda x, out: kept.append(x) or out}):  # type: ignore[func-returns-value]
            backbone.encode_image(pixels)
        return kept[0]


class TunedEnd(TunedWeights):
    """Copies of the weights from one point of the image tower to its end, to be trained on `Entering`.

    Attributes:
        behind: the point before the first of them.

    >>> import adaptkit as ak
    >>> from adaptkit.methods.tower_end import Entering, TunedEnd
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> end = TunedEnd(task.backbone, "image.block.-1")
    >>> end(test[:3].bind({"tokens": Entering()}).tokens).shape  # (B, D), raw
    torch.Size([3, 16])
    """

    def __init__(self, backbone: Backbone, point: str = LAST_BLOCK) -> None:
        """Copy the weights.

        Args:
            backbone: of which they are.
            point: the last block, or the head that pools, where there is one.
        """
        backbone.require(point)
        last = backbone.depth["image"] - 1
        parts = (f"image.block.{last}.", *AFTER) if point == LAST_BLOCK else (f"{point}.",)
        super().__init__(backbone, [name for name in backbone.weight_names() if name.startswith(parts)])
        start = "image.prenorm" if "image.prenorm" in backbone.points else "image.tokens"
        below = f"image.block.{last - 1}" if last else start
        self.behind = below if point == LAST_BLOCK else "image.norm"
        backbone.require(self.behind)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``(B, T, W)`` to raw embeddings, ``(B, D)``: below, one blank image passes, and gives way to them."""
        blank = torch.zeros(1, 3, *[self.backbone.preprocess.size] * 2)
        with self.placed("image"), self.backbone.taps({self.behind: lambda _, out: tokens.to(out)}):
            return self.backbone.encode_image(blank)
