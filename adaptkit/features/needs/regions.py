"""What is asked of parts of the image tower's tokens: squares of patches alone, and a second path by values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from adaptkit.features.needs.images import Patches
from adaptkit.features.needs.need import Need
from adaptkit.features.needs.several import AT_ONCE
from adaptkit.features.needs.tokens import before_patches
from adaptkit.towers.backbone import unit

if TYPE_CHECKING:
    from adaptkit.towers.backbone import Backbone


@dataclass(frozen=True, kw_only=True)
class Regions(Need):
    """Embeddings of squares of patches, each as if the image had no others: ``(M, D)`` per image, row by row.

    The tokens enter the first block with their own positions, the class token before them, and nothing in the place of
    the others (WinCLIP, arXiv:2303.14814).

    Attributes:
        side: of a square, patches; squares overlap, one patch apart.
        unit: scaled to unit norm, or as the tower gives them; one stored table serves both.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> test[:3].bind({"regions": ak.Regions(side=2)}).regions.shape
    torch.Size([3, 9, 16])
    """

    side: int = 2
    unit: bool = True

    axes: ClassVar[tuple[str, ...]] = ("M", "D")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side < 1:
            raise ValueError(f"side must be at least 1; got {self.side}")

    def table(self, random: bool) -> Need:
        """Raw embeddings are what is stored."""
        return replace(super().table(random), unit=False)  # type: ignore[call-arg]

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Raw embeddings, ``(B, M, D)``."""
        backbone.require("image.tokens")
        count = Patches().shape(backbone)[0]
        grid, before = math.isqrt(count), before_patches(count)
        if self.side > grid:
            raise ValueError(f"side must be at most the patches in a row, {grid}; got {self.side}")
        places = before + squares((grid, grid), self.side)  # (M, side * side)
        first = torch.arange(before).expand(len(places), -1)
        chosen = torch.cat([first, places], 1).to(backbone.device)  # (M, T)

        def alone(rows: Tensor, image: Tensor) -> Tensor:
            with backbone.taps({"image.tokens": lambda _, tokens: tokens[0, rows]}):
                return backbone.encode_image(image)

        parts = [torch.cat([alone(rows, image[None]) for rows in chosen.split(AT_ONCE)]) for image in pixels]
        return torch.stack(parts)

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """``(M, D)``."""
        return max(0, math.isqrt(Patches().shape(backbone)[0]) - self.side + 1) ** 2, backbone.dim

    def read(self, rows: Tensor) -> Tensor:
        """Unit norm if asked for."""
        return unit(rows) if self.unit else rows


def squares(grid: tuple[int, int], side: int) -> Tensor:
    """The places of each square's patches on a grid of rows and columns, ``(M, side * side)``, row by row.

    >>> from adaptkit.features.needs.regions import squares
    >>> squares((2, 3), side=2)
    tensor([[0, 1, 3, 4],
            [1, 2, 4, 5]])
    """
    numbers = torch.arange(grid[0] * grid[1]).view(grid)
    return numbers.unfold(0, side, 1).unfold(1, side, 1).flatten(0, 1).flatten(1)
