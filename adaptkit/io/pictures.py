"""Pictures from files: which suffixes they have, and how they are decoded."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from PIL import Image

FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
}
"""By Pillow's name of a format that is decoded, whatever its file is called: suffixes of files taken for images.

Left out are formats that run another program or a script (EPS, PDF, WMF) and those that hardly anyone's pictures have.
"""
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""Of files that are taken for images."""


def decode(file: Path | IO[bytes], what: str) -> Image.Image:
    """An image from a file, fully read.

    Raises:
        ValueError: naming `what`, when it cannot be read, is so large that Pillow suspects an attack, or has
            more than 8 bits per channel, which Pillow would cut instead of scaling.
    """
    try:
        Image.init()  # then Pillow knows which formats it was built with
        with Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or float("inf")):  # Pillow only warns
                raise ValueError(f"its {image.width} x {image.height} pixels are too many")
            image.load()
    except Exception as cause:  # a decoder may raise anything
        raise ValueError(f"an image must be readable; got {what}: {cause}") from None
    if image.mode[0] in "IF":
        raise ValueError(f"an image must have 8 bits per channel; got {what} in mode {image.mode}; convert it")
    return image
