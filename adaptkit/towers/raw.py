"""Pixels before they are normalised: 8 bits each, a quarter of the bytes; normalised by the batch, to the same bits.

Nothing here imports torch at once: processes that only decode do without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING

import lazy_loader
import numpy as np
from PIL import Image

from adaptkit.towers.preprocess import Preprocess

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_loader.load("torch")


class Raw(Preprocess):
    """A preprocessing that stops before it normalises: an image to uint8 ``(size, size, 3)``.

    >>> from PIL import Image
    >>> raw = Raw(size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    >>> raw(Image.new("RGB", (60, 40))).shape
    (32, 32, 3)
    """

    def tensor(self, image: Image.Image) -> np.ndarray:  # type: ignore[override]  # an array where torch is not there
        """An image of the right size as it is."""
        return np.asarray(image)


@cache
def raw_of(how: Preprocess) -> Raw:
    """The same preprocessing, up to where it normalises."""
    return Raw(**{each.name: getattr(how, each.name) for each in fields(how)})


def normalised(rows: Sequence[np.ndarray], how: Preprocess, device: torch.device) -> Tensor:
    """Raw pixels of B images on a device, ``(B, 3, size, size)``: `Preprocess.tensor` of each, stacked, bit for bit.

    They travel as bytes, from pinned memory while the device computes. There every operation is that of
    `Preprocess.tensor`, one rounding each; 255 is a tensor, as CUDA multiplies by the reciprocal of a plain number.
    """
    held = torch.empty((len(rows), *rows[0].shape), dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.stack(rows, out=held.numpy())
    moved = held.to(device, non_blocking=True).permute(0, 3, 1, 2)  # (B, 3, size, size)
    full, mean, std = _constants(how, device)
    pixels = moved.contiguous().float()
    return pixels.div_(full).sub_(mean).div_(std)


@cache
def _constants(how: Preprocess, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Full intensity and, by channel, mean and deviation, ``(3, 1, 1)``."""
    mean, std = (torch.tensor(each, device=device)[:, None, None] for each in (how.mean, how.std))
    return torch.tensor(255.0, device=device), mean, std
