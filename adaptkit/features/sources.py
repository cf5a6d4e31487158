"""What sources of images share: how an item and its key are taken from the same bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Self

from PIL import Image

from adaptkit.io.digests import FileDigests
from adaptkit.io.files import digest
from adaptkit.io.pictures import decode


def open_bytes(data: bytes, what: str) -> tuple[str, Image.Image]:
    """The digest of some bytes, and the image decoded from them; errors name `what`."""
    return digest(data), decode(io.BytesIO(data), what)


class Drawn:
    """A source whose images are held or made in memory: they cannot change between `key` and `image`."""

    def key(self, i: int) -> str:
        """Digest of everything that determines image ``i``."""
        raise NotImplementedError

    def image(self, i: int) -> Image.Image:
        """Image ``i``."""
        raise NotImplementedError

    def open(self, i: int) -> tuple[str, Image.Image]:
        """The key and the image."""
        return self.key(i), self.image(i)


@dataclass(frozen=True)
class PictureFiles:
    """Labelled image files, keyed by their bytes.

    Attributes:
        name: as progress bars and errors show it.
        paths: of the files.
        labels: a class id for each.
        digests: of files that were read before.
        root: the folder that their places are told from.
        targets: rows of zeros and ones, one number a class, where an image may be of several; then there are no labels.
    """

    name: str
    paths: Sequence[str | PathLike[str]]
    labels: Sequence[int]
    digests: FileDigests
    root: str | PathLike[str] = ""
    targets: Sequence[Sequence[int]] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, i: int) -> str:
        """The place of file ``i``, from the root: the same on every machine."""
        path = Path(self.paths[i])
        return Path(os.path.relpath(path, self.root)).as_posix() if str(self.root) else path.name

    def key(self, i: int) -> str:
        """Digest of the file, read only if it changed since it was read last."""
        try:
            return self.digests.of(self.paths[i])
        except FileNotFoundError:
            raise self._absent(i) from None
        finally:
            if i + 1 == len(self):  # the end of a sweep
                self.digests.save()

    def open(self, i: int) -> tuple[str, Image.Image]:
        """The digest of the file and the image in it, of one reading."""
        try:
            key, data = self.digests.read(self.paths[i])
        except FileNotFoundError:
            raise self._absent(i) from None
        return key, decode(io.BytesIO(data), repr(str(self.paths[i])))

    def picture_file(self, i: int) -> Path | None:
        """The file that holds image ``i``, unless a subclass opens it in another way."""
        return Path(self.paths[i]) if type(self).open is PictureFiles.open else None

    def image(self, i: int) -> Image.Image:
        """Image ``i``, decoded."""
        return self.open(i)[1]

    def some(self, rows: Sequence[int], **changes: Any) -> Self:  # noqa: ANN401 (name, labels, targets)
        """Some of the files, in this order, with another name, labels or targets."""
        return replace(self, paths=[self.paths[i] for i in rows], **changes)

    def _absent(self, i: int) -> ValueError:
        return ValueError(f"images of {self.name} must all be there; got no {str(self.paths[i])!r}")
