"""Which pictures can be read: each is looked at once, and what can be is remembered by its content."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import PIL
from PIL import Image
from tqdm import tqdm

from adaptkit.features.decoding import decoders
from adaptkit.features.items import Source
from adaptkit.io.files import atomic_write, digest

ID = 16  # bytes of a digest that are remembered
HANDED = 4096  # pictures handed to the threads together


class Sound:
    """Digests of pictures that were decoded before, in a file that processes share; to lose it only costs time.

    Another version of Pillow, or another limit of size, is another decoder: it looks at all of them anew. What cannot
    be decoded is not remembered, so that the reason can be told each time.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.fresh = file, set[bytes]()
        self.decoder = f"{PIL.__version__} {Image.MAX_IMAGE_PIXELS}".encode()
        self.known = self._load()

    def __contains__(self, key: str) -> bool:
        return _id(key) in self.known

    def add(self, key: str) -> None:
        """Remember a digest."""
        self.fresh.add(_id(key))

    def save(self) -> None:
        """Write down what was learned since the last save."""
        if not self.fresh:
            return
        self.known = self.known | self._load() | self.fresh
        body, self.fresh = b"".join(sorted(self.known)), set()
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self.file, b"\n".join([self.decoder, digest(body).encode(), body]))

    def _load(self) -> set[bytes]:
        try:
            decoder, told, body = self.file.read_bytes().split(b"\n", 2)
        except (OSError, ValueError):
            return set()
        if decoder != self.decoder or told != digest(body).encode():
            return set()
        return {body[at : at + ID] for at in range(0, len(body), ID)}


def sound_pictures(images: Source, file: Path) -> tuple[list[str], dict[int, str]]:
    """The key of each picture of a source, and what is wrong with those that cannot be read, by number.

    Args:
        images: a source whose ``key`` and ``open`` raise a ``ValueError`` or an ``OSError`` for what cannot be read.
        file: where digests of sound pictures are remembered.
    """
    sound, bad = Sound(file), dict[int, str]()
    keys = [_key(images, i, bad) for i in range(len(images))]
    new = [i for i, key in enumerate(keys) if i not in bad and key not in sound]
    title, threads = f"{images.name} · looking", decoders(os.getpid())
    with tqdm(total=len(new), desc=title, unit="image", disable=None, delay=2, leave=False) as bar:
        for at in range(0, len(new), HANDED):
            some = new[at : at + HANDED]
            for i, wrong in zip(some, threads.map(lambda i: _wrong(images, i), some), strict=True):
                bar.update()
                if wrong:
                    bad[i] = wrong
                else:
                    sound.add(keys[i])
    sound.save()
    return keys, dict(sorted(bad.items()))


def _key(images: Source, i: int, bad: dict[int, str]) -> str:
    try:
        return images.key(i)
    except (OSError, ValueError) as error:
        bad[i] = _reason(error)
    return ""


def _wrong(images: Source, i: int) -> str:
    try:
        images.open(i)
    except (OSError, ValueError) as error:
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename!r}: {error.strerror}"
    return " ".join(str(error).split()).removeprefix("an image must be readable; got ")


def _id(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=ID).digest()
