"""What is asked of the image tower's tokens in sum: how they are spread in each block, which tells of style."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from adaptkit.features.needs.need import Need

if TYPE_CHECKING:
    from adaptkit.towers.backbone import Backbone


@dataclass(frozen=True, kw_only=True)
class BlockStatistics(Need):
    """Mean and deviation over the tokens that leave each block of the image tower: ``(K, 2, W)`` per image.

    >>> import adaptkit as ak
    >>> from adaptkit.features.needs.statistics import BlockStatistics
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> test[:3].bind({"style": BlockStatistics()}).style.shape
    torch.Size([3, 2, 2, 32])
    """

    axes: ClassVar[tuple[str, ...]] = ("K", "2", "W")
    dtype: ClassVar[str] = "float32"

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Statistics, ``(B, K, 2, W)``."""
        backbone.require("image.block.0")
        kept: dict[int, Tensor] = {}

        def keep(block: int) -> Callable[[Tensor, Tensor], Tensor]:
            def tap(_: Tensor, tokens: Tensor) -> Tensor:
                kept[block] = torch.stack([tokens.mean(1), tokens.var(1, correction=0).sqrt()], 1)  # (B, 2, W)
                return tokens

            return tap

        with backbone.taps({f"image.block.{i}": keep(i) for i in range(backbone.depth["image"])}):
            backbone.encode_image(pixels)
        return torch.stack([*kept.values()], 1)

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """``(K, 2, W)``."""
        return backbone.depth["image"], 2, backbone.width["image"]
