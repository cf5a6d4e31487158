"""A process that decodes pictures for another: files to raw pixels in memory that both share. It imports no torch.

It is told how once, then one request after another: which files, which views of them, and where the pixels go. It
answers with the digest of each file's bytes, "" for what it cannot do; the other then does it, and meets the reason.
It ends when the other does: their connection closes, whatever killed the other.
"""

from __future__ import annotations

import io
import mmap
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from adaptkit.features.names import view_seed
from adaptkit.io.files import canonical, digest
from adaptkit.io.jsons import parse_json
from adaptkit.io.paths import read_file
from adaptkit.io.pictures import decode
from adaptkit.towers.raw import Raw

Keyed = tuple[str, Image.Image | None]  # of a file: digest and picture, or nothing


def serve(connection: int, memory: int) -> None:
    """Answer requests until the other end closes.

    Args:
        connection: descriptor of one end of a pair of sockets.
        memory: descriptor of the shared memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other, which then closes
    with Connection(connection) as line, suppress(EOFError, OSError):
        how = parse_json(line.recv_bytes())
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = how["most"], how["truncated"]
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in how["preprocess"].items()
        }
        raw, shared = Raw(**fields), mmap.mmap(memory, 0)
        slab = np.frombuffer(shared, np.uint8).reshape(-1, raw.size, raw.size, 3)
        line.send_bytes(canonical(libraries()))
        while True:
            request = parse_json(line.recv_bytes())
            line.send_bytes(canonical(views_of(request, raw, slab)))


def libraries() -> list[str]:
    """What must be the same in both processes, so that their pixels are."""
    return [Image.__version__, np.__version__]


def views_of(request: dict[str, Any], raw: Raw, slab: np.ndarray) -> list[str]:
    """The digests of some files whose views were put into the slab; a file that follows itself is read once."""
    keys, last = list[str](), None
    known: Keyed = "", None
    for path, slot, view, augment in zip(*(request[n] for n in ("paths", "slots", "views", "augments")), strict=True):
        if path != last:
            last, known = path, keyed_picture(path)
        key, image = known
        try:
            if image is not None:
                slab[slot] = raw(image) if view < 0 else raw.view(image, augment, view_seed(key, view))
        except (ValueError, OSError, MemoryError):
            key = ""
        keys.append(key)
    return keys


def keyed_picture(path: str) -> Keyed:
    """The digest of a file and the picture in it, of one reading; nothing where it cannot be read."""
    try:
        data = read_file(path)
        return digest(data), decode(io.BytesIO(data), repr(path))
    except (ValueError, OSError, MemoryError):
        return "", None
