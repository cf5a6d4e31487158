"""Pictures from files: which suffixes they have, which of a folder's files are some, and how they are decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

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
LITTER = ("__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db")
"""What systems leave in folders, in small letters; it is never spoken of."""


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
    except UnidentifiedImageError:
        raise ValueError(f"an image must be readable; got {what}: it holds none of {', '.join(FORMATS)}") from None
    except Exception as cause:  # a decoder may raise anything
        raise ValueError(f"an image must be readable; got {what}: {cause}") from None
    if image.mode[0] in "IF":
        raise ValueError(f"an image must have 8 bits per channel; got {what} in mode {image.mode}; convert it")
    return image


def own(name: str) -> bool:
    """Whether a file or folder is somebody's, by its name: neither hidden nor what systems leave behind."""
    return name[:1] != "." and name.lower() not in LITTER


def is_picture(path: Path) -> bool:
    """Whether a path is taken for an image: by its suffix, and as a file."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def files_below(folder: Path) -> list[Path]:
    """Every file in a folder at any depth, sorted, but for what nobody put there; links to folders are not followed."""
    found = [path for path in folder.rglob("*") if all(map(own, path.relative_to(folder).parts))]
    return sorted(path for path in found if not path.is_dir())


def counted(paths: Iterable[Path]) -> str:
    """How many files there are of each suffix, e.g. ``"3 .txt, 1 .svg"``; the most first."""
    kinds = Counter(path.suffix.lower() or "without a suffix" for path in paths)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0])))
