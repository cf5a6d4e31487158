"""What is asked of the image tower's tokens: several blocks, the last block by other attention, means inside masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from adaptkit.features.needs.images import Patches
from adaptkit.features.needs.need import Need
from adaptkit.io.errors import must_be
from adaptkit.towers.backbone import unit

if TYPE_CHECKING:
    from adaptkit.towers.backbone import Backbone, Tap

ATTENTIONS = {"own": "", "value": "", "value-value": "v", "query-query": "q", "key-key": "k"}
"""What the last block's tokens attend by, with the linear map that stands for queries and for keys, if one does."""


@dataclass(frozen=True, kw_only=True)
class Layers(Need):
    """Tokens leaving several blocks of the image tower: ``(K, T, W)`` per image, not projected.

    Attributes:
        blocks: the K blocks, from 0, or negative from the end; or ``"quarters"``, the last one of each quarter of the
            tower, e.g. 5, 11, 17 and 23 of 24.
        tokens: ``"all"`` of a block's T; its ``"patches"`` alone, row by row; its ``"class"`` token alone, so that T is
            1; or places in the sequence, e.g. ``(0, 7)``, so that T is their number.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> test[:3].bind({"layers": ak.Layers(blocks=(0, -1), tokens="patches")}).layers.shape
    torch.Size([3, 2, 16, 32])
    """

    blocks: tuple[int, ...] | Literal["quarters"] = (-4, -3, -2, -1)
    tokens: str | tuple[int, ...] = "all"

    axes: ClassVar[tuple[str, ...]] = ("K", "T", "W")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.blocks:
            raise ValueError("blocks must be at least one; got none")
        if isinstance(self.blocks, str) and self.blocks != "quarters":
            raise ValueError(must_be("blocks", ("quarters", "numbers"), self.blocks))
        if isinstance(self.tokens, str) and self.tokens not in ("all", "patches", "class"):
            raise ValueError(must_be("tokens", ("all", "patches", "class", "places"), self.tokens))

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Tokens, ``(B, K, T, W)``."""
        backbone.require("image.block.-1")
        kept, blocks = dict[int, Tensor](), chosen_blocks(self.blocks, backbone)
        taps: dict[str, Tap] = {
            f"image.block.{i}": lambda _, out, i=i: kept.setdefault(i, out)  # type: ignore[misc]
            for i in blocks
        }
        with backbone.taps(taps):
            backbone.encode_image(pixels)
        rows = torch.stack([kept[i] for i in blocks], 1)
        return rows[:, :, self.places(rows.shape[2])]

    def places(self, count: int) -> list[int]:
        """Which of a sequence of tokens are kept."""
        if self.tokens == "all":
            return list(range(count))
        if self.tokens == "patches":
            return list(range(before_patches(count), count))
        places = [0] if self.tokens == "class" else list(self.tokens)
        if self.tokens == "class" and not before_patches(count):
            raise ValueError("tokens must be 'all', 'patches' or places; got 'class' and a tower without class token")
        if bad := [place for place in places if not -count <= place < count]:  # type: ignore[operator]
            raise ValueError(f"tokens must be places from {-count} to {count - 1}; got {bad[0]}")
        return places  # type: ignore[return-value]

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """``(K, T, W)``."""
        count, width = Patches().shape(backbone)
        return len(chosen_blocks(self.blocks, backbone)), len(self.places(count)), width


@dataclass(frozen=True, kw_only=True)
class Dense(Need):
    """Patch tokens of the last block: ``(P, D)`` per image in the joint space, row by row, without class token.

    Each token passes what follows the last block, pooling head included, as if it were alone. The block's residual
    path and its perceptron stay whatever the attention is.

    Attributes:
        attention: of the last block. ``"own"`` as it is; ``"value"``, each token to itself alone (MaskCLIP,
            arXiv:2112.01071); ``"value-value"``, by the similarity of values in place of queries and keys (CLIP
            Surgery, arXiv:2304.05653); ``"query-query"`` and ``"key-key"`` likewise (SCLIP, arXiv:2312.01597).
        projected: in the joint space, or ``(P, W)`` as the tokens leave the block.
        unit: scaled to unit norm, or as the tower gives them; one stored table serves both.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> test[:3].bind({"patches": ak.Dense(attention="value-value")}).patches.shape
    torch.Size([3, 16, 16])
    """

    attention: str = "value"
    projected: bool = True
    unit: bool = True

    axes: ClassVar[tuple[str, ...]] = ("P", "D")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention not in ATTENTIONS:
            raise ValueError(must_be("attention", ATTENTIONS, self.attention))

    def table(self, random: bool) -> Need:
        """Raw tokens are what is stored."""
        return replace(super().table(random), unit=False)  # type: ignore[call-arg]

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Raw tokens, ``(B, P, D)``."""
        backbone.require("image.block.-1")
        block, kept = f"image.block.{backbone.depth['image'] - 1}", []

        def alone(_: Tensor, out: Tensor) -> Tensor:
            kept.append(out[:, before_patches(out.shape[1]) :])  # (B, P, W)
            return kept[0].flatten(0, 1)[:, None] if self.projected else out  # (B * P, 1, W)

        with backbone.taps({**attend(backbone, block, self.attention), block: alone}):
            rows = backbone.encode_image(pixels)
        return rows.unflatten(0, (len(pixels), -1)) if self.projected else kept[0]

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """``(P, D)``, or ``(P, W)`` where tokens are not projected."""
        count, width = Patches().shape(backbone)
        return count - before_patches(count), backbone.dim if self.projected else width

    def read(self, rows: Tensor) -> Tensor:
        """Unit norm if asked for."""
        return unit(rows) if self.unit else rows


@dataclass(frozen=True, eq=False)
class Masked:
    """An image with masks, as an item of a source.

    Attributes:
        image: as it was opened.
        masks: M masks of the image's size, ``(height, width)`` each, true inside.

    >>> import numpy as np
    >>> from PIL import Image
    >>> left = np.zeros((32, 48), bool)
    >>> left[:, :24] = True
    >>> item = Masked(Image.new("RGB", (48, 32)), [left, ~left])
    """

    image: Image.Image
    masks: Sequence[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Masks(Dense):
    """Means of patch tokens inside an image's masks: ``(count, D)`` per `Masked`.

    A patch counts by the share of it that is inside. Where an image has fewer masks, or one is empty after the crop,
    the row is zero.

    Attributes:
        count: rows of each image, as many as the most masks of one.

    >>> import adaptkit as ak
    >>> ak.Masks(count=3).axes
    ('K', 'D')
    """

    count: int = 1

    axes: ClassVar[tuple[str, ...]] = ("K", "D")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1:
            raise ValueError(f"count must be at least 1; got {self.count}")
        if self.augment == "augmix" and self.views:
            raise ValueError("augment must move pixels only, for masks; got 'augmix'; choose crop-flip")

    def prepare(self, item: Masked, backbone: Backbone, view: int, seed: str) -> Tensor:
        """The pixels and, cut as they are, the masks: ``(3 + count, H, W)``."""
        if not isinstance(item, Masked) or len(item.masks) > self.count:
            got = f"{len(item.masks)} masks" if isinstance(item, Masked) else type(item).__name__
            raise ValueError(f"an item must be Masked, with at most {self.count} masks, for Masks; got {got}")
        parts, how = [super().prepare(item.image, backbone, view, seed)], backbone.preprocess
        for mask in item.masks:
            if mask.shape != (item.image.height, item.image.width):
                raise ValueError(f"a mask must be {item.image.height, item.image.width}; got {mask.shape}")
            drawn = Image.fromarray(255 * np.asarray(mask, bool).astype(np.uint8))
            inside = super().prepare(drawn, backbone, view, seed)[:1] * how.std[0] + how.mean[0]
            parts.append(inside.clamp(0, 1))  # bicubic filters overshoot
        missing = parts[0].new_zeros(self.count - len(item.masks), how.size, how.size)
        return torch.cat([*parts, missing])

    def blank(self, backbone: Backbone) -> Tensor:
        """Of nothing, ``(3 + count, size, size)`` zeros."""
        return super().blank(backbone)[:1].repeat(3 + self.count, 1, 1)

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Raw means, ``(B, count, D)``."""
        rows = super().compute(backbone, pixels[:, :3])  # (B, P, D)
        weights = F.adaptive_avg_pool2d(pixels[:, 3:], math.isqrt(rows.shape[1])).flatten(2)  # (B, count, P)
        return weights @ rows / weights.sum(-1, keepdim=True).clamp_min(1e-6)

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """``(count, D)``, or ``(count, W)`` where tokens are not projected."""
        return self.count, super().shape(backbone)[1]


def chosen_blocks(blocks: tuple[int, ...] | str, backbone: Backbone) -> tuple[int, ...]:
    """Numbers of blocks of the image tower: as they are, or the last of each quarter of it."""
    if not isinstance(blocks, str):
        return blocks
    backbone.require("image.block.-1")
    return tuple(math.ceil(backbone.depth["image"] * quarter / 4) - 1 for quarter in (1, 2, 3, 4))


def before_patches(count: int) -> int:
    """Of `count` tokens, how many come before the square of patches: class token and registers."""
    return count - math.isqrt(count) ** 2


def attend(backbone: Backbone, block: str, attention: str) -> dict[str, Tap]:
    """Taps that make one block's tokens attend by something else; see `Dense`."""
    if attention == "own" or (attention == "value" and not backbone.depth["image"]):
        return {}  # where only the head attends, as a ResNet's, a token alone passes it by its value
    backbone.require(*(f"{block}.{part}" for part in ("q", "k", "v", "out")))
    if same := ATTENTIONS[attention]:
        linear = backbone.points[f"{block}.{same}"]
        return {f"{block}.{part}": lambda x, _: linear.untapped(x) for part in "qk"}  # its own taps must not run again
    values, out = [], backbone.points[f"{block}.out"]
    return {
        f"{block}.v": lambda _, v: values.append(v) or v,  # type: ignore[func-returns-value]
        f"{block}.out": lambda _x, _o: out.untapped(values.pop()),
    }
