"""What plugins that reach for a model hub share: quick answers about what is there, and images that are checked."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import IO
from urllib import error, request

from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Of files that are taken for images."""


def answers(url: str, seconds: float = 3) -> bool:
    """Whether a host answers in time. In a thread, because looking up its address has no time limit of its own."""
    heard = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError):
            with contextlib.suppress(error.HTTPError):  # an answer, too
                request.urlopen(url, timeout=seconds).close()
            heard.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return heard.is_set()


def is_id(name: str) -> bool:
    """Whether this could be a repository on the hub: ``owner/name``, or a name."""
    return re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) is not None


def nearest(path: Path, good: Callable[[Path], bool]) -> str:
    """``"; did you mean 'photos'?"``: the neighbour with the most similar name, or nothing."""
    near = get_close_matches(path.name, [p.name for p in path.parent.glob("*") if good(p)], n=1)
    return f"; did you mean {str(path.with_name(near[0]))!r}?" if near else ""


def decode(file: Path | IO[bytes], what: str) -> Image.Image:
    """An image from a file, fully read.

    Raises:
        ValueError: naming `what`, when it cannot be read, is so large that Pillow suspects an attack, or has
            more than 8 bits per channel, which Pillow would cut instead of scaling.
    """
    try:
        with Image.open(file) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or float("inf")):  # Pillow only warns
                raise ValueError(f"its {image.width} x {image.height} pixels are too many")
            image.load()
    except Exception as cause:  # a decoder may raise anything
        raise ValueError(f"an image must be readable; got {what}: {cause}") from None
    if image.mode[0] in "IF":
        raise ValueError(f"an image must have 8 bits per channel; got {what} in mode {image.mode}; convert it")
    return image
