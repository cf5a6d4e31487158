"""Digests of files, remembered while the files stay as they are."""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from adaptkit.io.files import Signature, atomic_write, canonical, digest, signature
from adaptkit.io.jsons import parse_json
from adaptkit.io.paths import read_file, regular

RACY = 2_000_000_000  # nanoseconds between the ticks of the coarsest time stamps in use


class FileDigests:
    """Content digests of files, without reading unchanged files again.

    A digest is remembered under the file's path, size, mtime, ctime and inode. A file touched within two seconds of
    being read is not remembered: it could change once more and keep its time stamps. Processes may share an index;
    saving takes in what others saved before. An index that is missing, damaged or cannot be written only costs time.
    """

    def __init__(self, index: Path) -> None:
        self.index = index
        self._known = self._load()
        self._fresh: dict[str, tuple[Signature, str]] = {}
        self._wrong: dict[str, tuple[Signature, str]] = {}

    def of(self, path: os.PathLike[str] | str) -> str:
        """Sha256 of the file's bytes, in hex."""
        path, now, before = os.path.abspath(path), time.time_ns(), signature(path)
        if before is not None and path in self._known and self._known[path][0] == before:
            return self._known[path][1]
        with open(regular(Path(path), "a file of images", 2**62), "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if before is not None and before == signature(path) and max(before[2:]) < now - RACY:
            self._known[path] = self._fresh[path] = before, found
        return found

    def read(self, path: os.PathLike[str] | str) -> tuple[str, bytes]:
        """Sha256 of the file's bytes and the bytes, of one reading; a remembered digest that is another is forgotten.

        File systems whose clock is coarse, or that hide a change, can keep a file's time stamps while it changes.
        """
        data = read_file(Path(path))
        path, found = os.path.abspath(path), digest(data)
        known = self._known.get(path)
        if known is not None and known[1] != found:
            self._wrong[path] = known
            self._known.pop(path, None)
            self._fresh.pop(path, None)
        return found, data

    def save(self) -> None:
        """Write down what was learned since the last save."""
        if self._fresh or self._wrong:
            merged = self._known | self._load() | self._fresh
            self._known = {path: entry for path, entry in merged.items() if self._wrong.get(path) != entry}
            body = canonical(self._known)
            with suppress(OSError):  # a home that cannot be written to costs time, too
                atomic_write(self.index, digest(body).encode() + b"\n" + body)
            self._fresh, self._wrong = {}, {}

    def _load(self) -> dict[str, tuple[Signature, str]]:
        try:
            head, _, body = read_file(self.index).partition(b"\n")
            if head != digest(body).encode():  # damaged
                return {}
            return {path: (_signature(*seen), str(found)) for path, (seen, found) in parse_json(body, bits=64).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


def _signature(*numbers: int) -> Signature:
    """A signature, or a ValueError where there are other things in its place."""
    inode, size, mtime, ctime = (n for n in numbers if type(n) is int)
    return inode, size, mtime, ctime
