"""Maps as pictures: in colours from black over red to pale yellow, alone or over the image that they are of."""

from __future__ import annotations

import numpy as np
from PIL import Image

from adaptkit.report.thumbnails import THUMBNAIL_SIDE

# dark to light without a step, so that it reads in grey and for every eye; ends are near black and a pale yellow
STOPS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
FAINT, STRONG = 0.25, 0.85  # how much of the image the least and the largest number hide


def heat(values: np.ndarray) -> np.ndarray:
    """Colours, ``(H, W, 3)`` bytes, of a map, ``(H, W)`` bytes.

    >>> import numpy as np
    >>> from adaptkit.report.heat import heat
    >>> heat(np.array([[0, 255]], np.uint8)).tolist()
    [[[0, 0, 4], [252, 255, 164]]]
    """
    at, stops = values / 255 * (len(STOPS) - 1), np.array(STOPS, float)
    low = np.minimum(at.astype(int), len(STOPS) - 2)
    part = (at - low)[..., None]
    return np.round((1 - part) * stops[low] + part * stops[low + 1]).astype(np.uint8)


def heat_picture(values: np.ndarray, below: Image.Image | None = None) -> Image.Image:
    """A map ``(H, W)`` of bytes in colours; over the image that it is of, which takes its shape."""
    size = shown_size(values)
    smooth = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    colours = heat(smooth)
    if below is None:
        return Image.fromarray(colours)
    grey = np.asarray(below.convert("L").resize(size))[..., None].repeat(3, axis=-1)  # colours are the map's alone
    share = FAINT + (STRONG - FAINT) * smooth[..., None] / 255
    return Image.fromarray(np.round((1 - share) * grey + share * colours).astype(np.uint8))


def mask_picture(bits: np.ndarray, width: int) -> Image.Image:
    """A mask ``(H, W / 8)`` of bits, white where it is 1."""
    marked = np.unpackbits(bits, axis=-1, count=width) * np.uint8(255)
    return Image.fromarray(marked).resize(shown_size(marked), Image.Resampling.NEAREST)


def shown_size(values: np.ndarray) -> tuple[int, int]:
    """Width and height at which a map is shown."""
    height, width = values.shape
    scale = THUMBNAIL_SIDE / max(height, width)
    return max(1, round(scale * width)), max(1, round(scale * height))
