"""Pictures from anywhere, without labels: files, folders of files, and images in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from adaptkit.features.cache import CachedRows, FeatureCache
from adaptkit.features.captions import Captions
from adaptkit.features.composites import Composite
from adaptkit.features.items import Images
from adaptkit.features.sources import open_bytes
from adaptkit.io.files import digest
from adaptkit.io.pictures import SUFFIXES, counted, files_below, is_picture
from adaptkit.methods.method import Method

Picture = str | os.PathLike | Image.Image


class Pictures:
    """Files and images in memory, as a source that the cache can read."""

    name = "pictures"
    labels: Sequence[int] = ()

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.pictures = [p if isinstance(p, Image.Image) else Path(p) for p in pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def key(self, i: int) -> str:
        """Digest of the file, or of the pixels."""
        picture = self.pictures[i]
        if isinstance(picture, Path):
            return digest(existing(picture).read_bytes())
        return digest(f"{picture.size}".encode() + picture.convert("RGBA").tobytes())

    def open(self, i: int) -> tuple[str, Image.Image]:
        """The key and the picture; a file is read once for both."""
        picture = self.pictures[i]
        if isinstance(picture, Path):
            return open_bytes(existing(picture).read_bytes(), repr(str(picture)))
        return self.key(i), picture

    def picture_file(self, i: int) -> Path | None:
        """The file of a picture that is one."""
        picture = self.pictures[i]
        return picture if isinstance(picture, Path) else None


def existing(path: Path) -> Path:
    """The path of a file that is there."""
    if not path.is_file():
        raise ValueError(f"an image must be a file that exists; got {str(path)!r}")
    return path


def find_pictures(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Files as given, and the images in folders at any depth, sorted, each once; and the other files there.

    Raises:
        ValueError: for a path that does not exist, and for a folder without images.
    """
    found, rest = dict[Path, None](), dict[Path, None]()
    for path in paths:
        every = files_below(path) if path.is_dir() else []
        inside = [file for file in every if is_picture(file)]
        if path.is_dir() and not inside:
            got = counted(every) or "no file"
            raise ValueError(f"a folder must hold images, {', '.join(SUFFIXES)}; got {got} in {str(path)!r}")
        found |= dict.fromkeys(inside if path.is_dir() else [existing(path)])
        rest |= dict.fromkeys(file for file in every if not is_picture(file))
    return [*found], [*rest]


def as_images(pictures: Sequence[Picture], cache: FeatureCache) -> Images:
    """Pictures as a method reads them, on the device of the cache's backbone."""
    source = Pictures(pictures)
    return Images(CachedRows(cache, source), torch.arange(len(source)), device=cache.own.device)


def asked_texts(method: Method, texts: Sequence[Any], cache: FeatureCache) -> Images:
    """Texts as the queries of a method that searches a gallery.

    Raises:
        ValueError: when it reads more of a query than a text.
    """
    if more := sorted({need.of for need in method.all_needs()} - {"text"}):
        raise ValueError(
            f"queries must be texts alone to be asked by line; got {type(method).__name__}, of {more[0]!r}"
        )
    captions = Captions(list(texts), name="queries")
    source = Composite("queries", {"text": (captions, range(len(captions)))}, labels=[0] * len(captions))
    return Images(CachedRows(cache, source), torch.arange(len(source)), device=cache.own.device)
