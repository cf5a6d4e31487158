"""One look at each picture: its format, size and pixels, in few numbers."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from PIL import Image
from tqdm import tqdm

from adaptkit.features.datasets import picture_file_of
from adaptkit.features.decoding import decoders
from adaptkit.features.items import Source
from adaptkit.towers.preprocess import rgb

SHRUNK = 12  # of what a picture is shrunk to: small enough that re-encoding hardly shows
HANDED_OVER = 4096  # pictures given to the threads together
MAY_MOVE = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")


@dataclass(frozen=True)
class Sight:
    """What was seen of a picture.

    Attributes:
        pixels: digest of its size and pixels; "" for what is no picture.
        small: the picture shrunk to 12 x 12 pixels, mean 0 and norm 1, ``(432,)``.
        form: its file's format, as Pillow calls it; "" where it comes from no file.
        size: width and height in pixels.
        kinds: of ``"grey"``, ``"with alpha"`` and ``"animated"``, what it is.
        wrong: why it cannot be read; "" where it can.
    """

    pixels: str = ""
    small: np.ndarray | None = None
    form: str = ""
    size: tuple[int, int] = (0, 0)
    kinds: tuple[str, ...] = ()
    wrong: str = ""


def see_all(source: Source, progress: bool = False) -> list[Sight]:
    """What is seen of each picture of a source, decoded by threads."""
    threads, out = decoders(os.getpid()), list[Sight]()
    title = f"{source.name} · looking"
    with tqdm(total=len(source), desc=title, unit="image", disable=not progress, delay=2, leave=False) as bar:
        for at in range(0, len(source), HANDED_OVER):
            for seen in threads.map(lambda i: see(source, i), range(at, min(at + HANDED_OVER, len(source)))):
                out.append(seen)
                bar.update()
    return out


def see(source: Source, i: int) -> Sight:
    """What is seen of picture `i` of a source."""
    try:
        _, picture = source.open(i)
    except (OSError, ValueError) as error:
        return Sight(wrong=" ".join(str(error).split()).removeprefix("an image must be readable; got "))
    if not isinstance(picture, Image.Image):
        return Sight()  # a sequence of frames, or what else an item may be
    form, alpha = getattr(picture, "format", None) or "", picture.has_transparency_data
    plain = picture.convert("RGBA" if alpha else "RGB")
    pixels = hashlib.blake2b(f"{plain.mode} {plain.size} ".encode() + plain.tobytes(), digest_size=16).hexdigest()
    told = {"grey": picture.mode in ("1", "L", "LA"), "with alpha": alpha, "animated": _moves(source, i, form)}
    kinds = tuple(kind for kind, is_so in told.items() if is_so)
    return Sight(pixels, shrunk(plain), form, picture.size, kinds)


def shrunk(picture: Image.Image) -> np.ndarray:
    """A picture at 12 x 12 pixels, on white, mean 0 and norm 1, ``(432,)``: brightness and contrast do not count."""
    small = np.asarray(rgb(picture).resize((SHRUNK, SHRUNK), Image.Resampling.BOX), np.float32).ravel()
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1.0)


def _moves(source: Source, i: int, form: str) -> bool:
    """Whether a file holds several frames, of which the first is read."""
    file = picture_file_of(source, i) if form in MAY_MOVE else None
    if file is None:
        return False
    try:
        with Image.open(file, formats=[form]) as image:
            return getattr(image, "n_frames", 1) > 1
    except (OSError, ValueError, SyntaxError):  # what follows the first frame is damaged
        return False


def in_lines_of(seen: Sequence[Sight]) -> tuple[str, ...]:
    """Formats, sizes and kinds of pictures, in lines; none where there are none."""
    pictures = [one for one in seen if one.pixels]
    if not pictures:
        return ()
    forms = Counter(one.form or "made in memory" for one in pictures)
    lines = ["formats: " + ", ".join(f"{count:,} {form}" for form, count in forms.most_common())]
    for axis, name in enumerate(("widths", "heights")):
        values = [one.size[axis] for one in pictures]
        lines.append(f"{name}: {min(values):,} to {max(values):,} pixels, median {median(values):,.0f}")
    kinds = Counter(kind for one in pictures for kind in one.kinds)
    if kinds:
        lines.append("of them " + ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common()))
    return tuple(lines)
