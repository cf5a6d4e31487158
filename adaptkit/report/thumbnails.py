"""Small pictures that stand in a page itself."""

from __future__ import annotations

import base64
from io import BytesIO

from PIL import Image

from adaptkit.towers.preprocess import rgb

THUMBNAIL_SIDE = 112  # pixels of the longer side
QUALITY = 70  # of WebP


def small_picture(picture: Image.Image) -> str:
    """A picture as a small WebP, as an address of data; what is transparent is laid over white."""
    small, held = rgb(picture), BytesIO()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    small.save(held, format="WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(held.getvalue()).decode()}"
