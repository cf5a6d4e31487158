"""What is asked of several pictures of one item, each pooled: frames of a sequence, windows of a large image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from adaptkit.features.needs.images import Pooled
from adaptkit.features.needs.tokens import Dense

if TYPE_CHECKING:
    from adaptkit.towers.backbone import Backbone

AT_ONCE = 32  # pictures in one pass at least; more only where a batch has more items


@dataclass(frozen=True, kw_only=True)
class Several(Pooled):
    """Some pictures of each item, pooled one by one: ``(K, D)`` per item. A subclass says which; all share a view."""

    axes: ClassVar[tuple[str, ...]] = ("K", "D")

    @property
    def pictures_per_item(self) -> int:
        """K."""
        raise NotImplementedError

    def pictures(self, item: Any) -> Sequence[Image.Image]:  # noqa: ANN401 (an image or a sequence of images)
        """The K pictures of an item."""
        raise NotImplementedError

    def prepare(self, item: Any, backbone: Backbone, view: int, seed: str) -> Tensor:  # noqa: ANN401 (see above)
        """Each picture, ``(K, 3, H, W)``; a random view cuts all of them alike."""
        prepare = super().prepare  # a comprehension has no super of its own
        return torch.stack([prepare(picture, backbone, view, seed) for picture in self.pictures(item)])

    def blank(self, backbone: Backbone) -> Tensor:
        """Of nothing, ``(K, 3, size, size)`` zeros."""
        return super().blank(backbone).expand(self.pictures_per_item, -1, -1, -1)

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Pictures ``(B, K, 3, H, W)`` to raw embeddings, ``(B, K, D)``; no pass is larger than a batch of images."""
        parts = pixels.flatten(0, 1).split(max(AT_ONCE, len(pixels)))
        return torch.cat([self.compute_alone(backbone, part) for part in parts]).unflatten(0, pixels.shape[:2])

    def compute_alone(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Pictures by themselves, ``(N, 3, H, W)``, to raw embeddings, ``(N, D)``."""
        return super().compute(backbone, pixels)

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """``(K, D)``, or ``(K, W)`` before the projection."""
        return (self.pictures_per_item, *super().shape(backbone))


@dataclass(frozen=True, kw_only=True)
class Frames(Several):
    """Evenly spaced frames of a sequence of images, each pooled: ``(count, D)`` per item.

    An item is anything with a length whose members are images; members that are not chosen are not opened. Frame k is
    the middle of the k-th of `count` equal parts; of a shorter sequence some come twice.

    Attributes:
        count: how many frames.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.Frames(count=8).shape(task.backbone)
    (8, 16)
    """

    count: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1:
            raise ValueError(f"count must be at least 1; got {self.count}")

    @property
    def pictures_per_item(self) -> int:
        """Frames."""
        return self.count

    def pictures(self, item: Sequence[Image.Image]) -> list[Image.Image]:
        """The frames of a sequence."""
        if isinstance(item, (str, Image.Image)) or not len(item):
            raise ValueError(f"an item must be a sequence of images for Frames; got {type(item).__name__}")
        return [item[(2 * k + 1) * len(item) // (2 * self.count)] for k in range(self.count)]


@dataclass(frozen=True, kw_only=True)
class PaddedFrames(Frames):
    """As `Frames`, but all frames of a sequence of at most `count`, each once, and rows of zeros behind them.

    >>> import adaptkit as ak
    >>> ak.PaddedFrames(count=12).axes
    ('K', 'D')
    """

    def pictures(self, item: Sequence[Image.Image]) -> list[Image.Image]:
        """The frames of a sequence, at most `count`."""
        frames = super().pictures(item)
        return frames if len(item) >= self.count else [item[k] for k in range(len(item))]

    def prepare(self, item: Any, backbone: Backbone, view: int, seed: str) -> Tensor:  # noqa: ANN401 (a sequence)
        """Each frame, and what is no number in the place of those that are not there, ``(K, 3, H, W)``."""
        rows = super().prepare(item, backbone, view, seed)
        return torch.cat([rows, rows.new_full((self.count - len(rows), *rows.shape[1:]), torch.nan)])

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Frames to raw embeddings, ``(B, K, D)``, zeros where there is none."""
        absent = pixels.flatten(2).isnan().any(-1)  # (B, K)
        rows = super().compute(backbone, pixels.nan_to_num(0.0))
        return rows.masked_fill(absent.to(rows.device).view(*absent.shape, *[1] * (rows.dim() - 2)), 0.0)


@dataclass(frozen=True, kw_only=True)
class FramePatches(PaddedFrames):
    """As `PaddedFrames`, but the patch tokens of each frame in place of its embedding: ``(count, P, D)`` per item.

    They are those of `Dense` with the tower's own attention.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.FramePatches(count=6).shape(task.backbone)
    (6, 16, 16)
    """

    axes: ClassVar[tuple[str, ...]] = ("K", "P", "D")

    def compute_alone(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Frames by themselves, ``(N, 3, H, W)``, to raw tokens, ``(N, P, D)``."""
        return Dense(attention="own", unit=False, projected=self.projected).compute(backbone, pixels)

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """``(count, P, D)``, or ``(count, P, W)`` before the projection."""
        return self.count, *Dense(projected=self.projected).shape(backbone)


@dataclass(frozen=True, kw_only=True)
class Windows(Several):
    """Square windows on a grid over an image, each pooled as an image of its own: ``(rows * columns, D)`` per image.

    They are cut out of the image as it was opened, not as the tower sees it, so that details of large images count.
    Windows come row by row; the outer ones touch the edges.

    Attributes:
        rows: of the grid.
        columns: of the grid.
        side: of a window, a share of the image's shorter side.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> test[:3].bind({"windows": ak.Windows(rows=2, columns=3)}).windows.shape
    torch.Size([3, 6, 16])
    """

    rows: int = 3
    columns: int = 3
    side: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.rows, self.columns) < 1:
            raise ValueError(f"rows and columns must be at least 1; got {self.rows} and {self.columns}")
        if not 0 < self.side <= 1:
            raise ValueError(f"side must be above 0 and at most 1; got {self.side}")

    @property
    def pictures_per_item(self) -> int:
        """Windows."""
        return self.rows * self.columns

    def pictures(self, item: Image.Image) -> list[Image.Image]:
        """The windows of an image."""
        if not isinstance(item, Image.Image):
            raise ValueError(f"an item must be an image for Windows; got {type(item).__name__}")
        side = max(1, round(self.side * min(item.size)))
        lefts, tops = spread(item.width - side, self.columns), spread(item.height - side, self.rows)
        return [item.crop((left, top, left + side, top + side)) for top in tops for left in lefts]


def spread(end: int, count: int) -> list[int]:
    """`count` whole numbers from 0 to `end`, evenly spaced; the middle one if there is one only."""
    return [round(end * k / (count - 1)) if count > 1 else end // 2 for k in range(count)]
