"""A part of a resized image, without making the whole: an image of 1 x 20,000 pixels would become gigabytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]

OBLONG = 4_000_000  # pixels of a resized image that is still made whole
FIXED_BITS = 22  # of Pillow's fixed-point weights


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - abs(x), 0)


def _bicubic(x: np.ndarray) -> np.ndarray:
    x, a = abs(x), -0.5
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_KERNELS: dict[Image.Resampling, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    Image.Resampling.BILINEAR: (_bilinear, 1),
    Image.Resampling.BICUBIC: (_bicubic, 2),
}
"""Filters, and how many pixels they reach to either side."""


def crop_of_resized(image: Image.Image, size: tuple[int, int], box: Box, resample: Image.Resampling) -> Image.Image:
    """``image.resize(size, resample).crop(box)``, bit for bit, in time and memory of the crop where `size` is huge.

    Only an image that grows becomes huge. Then Pillow's arithmetic is done here for the pixels of the crop alone.

    Args:
        image: in mode RGB.
        size: width and height to resize to.
        box: left, top, right and bottom in the resized image; what lies outside is black.
        resample: Pillow's bilinear or bicubic filter.
    """
    if size[0] * size[1] <= OBLONG or size[0] <= image.width or size[1] <= image.height:
        return image.resize(size, resample).crop(box)
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], size[0]), min(box[3], size[1])
    x, across = _weights(image.width, size[0], range(left, right), resample)
    y, down = _weights(image.height, size[1], range(top, bottom), resample)
    pixels = np.asarray(image.crop((x.start, y.start, x.stop, y.stop)))  # (h, w, 3)
    pixels = _mix(across, pixels.swapaxes(0, 1)).swapaxes(0, 1)  # Pillow's order: rows first, rounded in between
    whole = Image.fromarray(np.ascontiguousarray(_mix(down, pixels)))
    return whole.crop((box[0] - left, box[1] - top, box[2] - left, box[3] - top))


def _weights(length: int, grown: int, wanted: range, resample: Image.Resampling) -> tuple[range, np.ndarray]:
    """Which pixels of an axis the wanted ones of the grown axis read, and their weights, ``(wanted, read)``.

    Sums and roundings stand in Pillow's order: other ones give other last bits.
    """
    kernel, reach = _KERNELS[resample]
    centre = (np.arange(wanted.start, wanted.stop) + 0.5) * (length / grown)
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + reach + 0.5).astype(np.int64), length)
    read = range(int(first.min()), int(last.max()))
    x = np.arange(read.start, read.stop)
    weights = kernel(x - centre[:, None] + 0.5) * ((x >= first[:, None]) & (x < last[:, None]))
    weights /= weights.cumsum(1)[:, -1:]
    return read, np.trunc(weights * 2**FIXED_BITS + np.where(weights < 0, -0.5, 0.5))


def _mix(weights: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Weighted sums over the first axis, rounded to 8 bits; exact, because all products are whole and below 2^53."""
    total = np.tensordot(weights, pixels.astype(np.float64), 1)
    return np.floor((total + 2 ** (FIXED_BITS - 1)) / 2**FIXED_BITS).clip(0, 255).astype(np.uint8)
