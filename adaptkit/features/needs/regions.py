"""What is asked of parts of the image tower's tokens: squares of patches alone, and a second path by values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from adaptkit.features.needs.images import Patches
from adaptkit.features.needs.need import Need
from adaptkit.features.needs.several import AT_ONCE
from adaptkit.features.needs.tokens import before_patches, chosen_blocks
from adaptkit.towers.backbone import unit

if TYPE_CHECKING:
    from adaptkit.towers.backbone import Backbone, Tap


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


@dataclass(frozen=True, kw_only=True)
class ValuePath(Need):
    """Patch tokens of a second path beside the last blocks, in the joint space: ``(K, P, D)`` per image.

    To what enters the first of these blocks each one adds its attention by values, of what enters it on the first path,
    and no perceptron (CLIP Surgery, arXiv:2304.05653). Before them, tokens are those of the first path. Each passes
    what follows the last block, pooling head included, as if it were alone.

    Attributes:
        blocks: after which tokens are read, from 0; or ``"quarters"``, as of `Layers`.
        last: blocks that the second path has at the end of the tower, at most all.
        unit: scaled to unit norm, or as the tower gives them; one stored table serves both.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> test[:3].bind({"path": ak.ValuePath(blocks=(0, 1))}).path.shape
    torch.Size([3, 2, 16, 16])
    """

    blocks: tuple[int, ...] | Literal["quarters"] = "quarters"
    last: int = 12
    unit: bool = True

    axes: ClassVar[tuple[str, ...]] = ("K", "P", "D")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.blocks or self.last < 1:
            raise ValueError(f"blocks and last must be at least one; got {self.blocks!r} and {self.last}")

    def table(self, random: bool) -> Need:
        """Raw tokens are what is stored."""
        return replace(super().table(random), unit=False)  # type: ignore[call-arg]

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Raw tokens, ``(B, K, P, D)``."""
        backbone.require("image.block.0")
        blocks, depth = chosen_blocks(self.blocks, backbone), backbone.depth["image"]
        path, end = second_path(backbone, self.last), f"image.block.{depth - 1}"
        shape: list[int] = []

        def alone(x: Tensor, out: Tensor) -> Tensor:
            path.taps[end](x, out)
            rows = torch.stack([path.kept[i % depth] for i in blocks], 1)  # (B, K, T, W)
            rows = rows[:, :, before_patches(rows.shape[2]) :]
            shape[:] = rows.shape[:3]
            return rows.flatten(0, 2)[:, None]  # (B * K * P, 1, W)

        with backbone.taps({**path.taps, end: alone}):
            rows = backbone.encode_image(torch.cat([pixels, pixels]))
        return rows.unflatten(0, shape)

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """``(K, P, D)``."""
        count = Patches().shape(backbone)[0]
        return len(chosen_blocks(self.blocks, backbone)), count - before_patches(count), backbone.dim

    def read(self, rows: Tensor) -> Tensor:
        """Unit norm if asked for."""
        return unit(rows) if self.unit else rows


@dataclass(frozen=True)
class SecondPath:
    """What makes one: taps for a batch of images and the same again, whose second half becomes the path's attention.

    Attributes:
        taps: by point.
        kept: tokens of the second path after each block, ``(B, T, W)``.
    """

    taps: dict[str, Tap]
    kept: dict[int, Tensor]


def second_path(backbone: Backbone, last: int) -> SecondPath:
    """A path of values beside so many blocks at the end; see `ValuePath`."""
    depth = backbone.depth["image"]
    taps: dict[str, Tap] = {}
    kept: dict[int, Tensor] = {}
    for i in range(depth):
        taps |= block_of_path(backbone, i, i >= depth - last, kept)
    return SecondPath(taps, kept)


def block_of_path(backbone: Backbone, i: int, beside: bool, kept: dict[int, Tensor]) -> dict[str, Tap]:
    """Taps of one block; what leaves it on the second path is kept."""
    block = f"image.block.{i}"

    def leave(x: Tensor, out: Tensor) -> Tensor:
        first, second = out.chunk(2)
        entered = x.chunk(2)[0]
        kept[i] = kept.get(i - 1, entered) + (second - entered) if beside else first
        return torch.cat([first, first])

    if not beside:
        return {block: leave}
    backbone.require(*(f"{block}.{part}" for part in ("q", "k", "v", "fc2")))
    value = backbone.points[f"{block}.v"]

    def by_value(x: Tensor, out: Tensor) -> Tensor:
        return torch.cat([out.chunk(2)[0], value.untapped(x.chunk(2)[1])])

    def nothing(_: Tensor, out: Tensor) -> Tensor:
        return torch.cat([out.chunk(2)[0], torch.zeros_like(out.chunk(2)[1])])

    return {f"{block}.q": by_value, f"{block}.k": by_value, f"{block}.fc2": nothing, block: leave}


def squares(grid: tuple[int, int], side: int) -> Tensor:
    """The places of each square's patches on a grid of rows and columns, ``(M, side * side)``, row by row.

    >>> from adaptkit.features.needs.regions import squares
    >>> squares((2, 3), side=2)
    tensor([[0, 1, 3, 4],
            [1, 2, 4, 5]])
    """
    numbers = torch.arange(grid[0] * grid[1]).view(grid)
    return numbers.unfold(0, side, 1).unfold(1, side, 1).flatten(0, 1).flatten(1)
