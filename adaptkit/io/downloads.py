"""Files from the web: what was got of one is kept, and the next try goes on from there.

The transfer is pooch's; what is ours is that it goes on, that it stops at the stated size, and that nobody takes a page
that says "not found" for a dataset.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from adaptkit.io.files import make_folder, naming
from adaptkit.io.paths import regular

NO_POOCH = "pooch must be installed to get files; got none; pip install 'adaptkit-vlm[data]'"
PACKET = 1 << 16  # bytes, written and told at once; less than one is lost where a line breaks
PATIENCE = 30  # seconds without a byte
AGAIN = (408, 416, 429, 500, 502, 503, 504)  # what a server says that may answer later
PAUSES = (1.0, 3.0)  # seconds before the same address is asked again
BY_ROOT = "--root"
OVER = 1.2  # a file whose size is known about may have so many times as much


def file_digest(path: Path, kind: str) -> str:
    """Digest of a file, named by its kind: ``sha256``, ``md5``, or ``git`` as `git hash-object` prints it."""
    size = regular(path, "a file to hash", 2**62).stat().st_size
    start = hashlib.sha1(b"blob %d\0" % size) if kind == "git" else hashlib.new(kind)
    with open(path, "rb") as file:
        return f"{kind}:{hashlib.file_digest(file, lambda: start).hexdigest()}"


def wrong_file(path: Path, size: int | None, digests: Sequence[str]) -> str:
    """What is wrong with a file, in words that name it; "" where it has the size and one of the digests.

    Args:
        path: of the file.
        size: bytes it must have; ``None`` where nobody says.
        digests: as `file_digest` names them; any of them will do, none holds the file to nothing.
    """
    have = path.stat().st_size
    if size is not None and have != size:
        return f"{path} must have {size:,} bytes; got {have:,}"
    got = [file_digest(path, kind) for kind in dict.fromkeys(digest.partition(":")[0] for digest in digests)]
    if digests and not set(got) & set(digests):
        return f"{path} must have {' or '.join(digests)}; got {' and '.join(got)}"
    return ""


def download(
    path: Path,
    addresses: Sequence[str],
    *,
    size: int | None = None,
    about: int | None = None,
    digests: Sequence[str] = (),
    tell: Callable[[str], object] = lambda text: None,
) -> Path:
    """Get a file, whose path is returned, from the first of some addresses that has it; till then it is ``path.part``.

    Args:
        path: where it shall lie; there only once it is whole and right.
        addresses: of http or https, tried in turn.
        size: bytes it must have, where that is known.
        about: bytes it has, roughly, where no more is known.
        digests: any of which it must have.
        tell: is told, in a line, of a file that came and is another.

    Raises:
        ValueError: when no address has it, with what each answered.
        OSError: when the disk cannot take it.
    """
    part, answers = path.with_name(f"{path.name}.part"), []
    if odd := [at for at in addresses if not re.match(r"https?://", at)]:
        raise ValueError(f"an address must begin with http:// or https://; got {odd[0]!r}")
    make_folder(path.parent, BY_ROOT)
    for address in addresses:
        for resumed in (_size(part) > 0, False):
            answer = _fill(part, address, size, about)
            wrong = "" if answer else wrong_file(part, size, digests)
            if not answer and not wrong:
                return part.replace(path)
            if wrong:
                part.replace(part.with_suffix(".wrong"))
                tell(f"{wrong}, from {address}; kept as {part.with_suffix('.wrong').name}")
            if not (wrong and resumed):  # else the beginning may have been another file's: once more, from there
                break
        answers.append(f"{answer or 'another file'} from {address}")
    raise ValueError(f"{path.name} must come from one of its addresses; got {', '.join(answers)}; try again later")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _fill(part: Path, address: str, size: int | None, about: int | None) -> str:
    """Get the rest of a file from one address, as long as more of it comes; what went wrong, or ""."""
    most, tries = _size(part), 0
    while True:
        if size is not None and _size(part) == size:
            return ""
        try:
            _transfer(address, part, _Asked(_size(part), size, about))
            return ""
        except _NotThisError as error:
            tries = 0 if _size(part) > most else tries + 1
            if not error.again or tries > len(PAUSES):
                return str(error)
        most = max(most, _size(part))
        if tries:
            time.sleep(PAUSES[tries - 1])


class _NotThisError(Exception):
    """An address does not give the file, for good or for now."""

    def __init__(self, message: str, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


class _Asked:
    """What a request is for: the rest of a file from a byte on, of a size that is known, or known about."""

    def __init__(self, start: int, size: int | None, about: int | None) -> None:
        self.start, self.size = start, size
        self.most = size if size is not None else int(OVER * about) if about else None

    def answer(self, response: Any, file: IO[bytes]) -> None:  # noqa: ANN401 (of requests, which may be absent)
        """Look at the head of an answer; where the server starts anew, so does the file."""
        if response.is_redirect or not response.ok:
            return
        said = re.match(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
        start = int(said[1]) if said else 0
        if response.status_code == 206 and (not said or start != self.start):
            raise _NotThisError(f"another part than from byte {self.start:,} on")
        length = response.headers.get("content-length", "")
        whole = int(said[2]) if start and said else int(length) if length.isdecimal() else None
        if whole is not None and self.size is not None and whole != self.size:
            raise _NotThisError(f"a file of {whole:,} bytes, where {self.size:,} are stated")
        self.hold(whole or 0)
        file.seek(start)
        file.truncate()

    def hold(self, count: int) -> None:
        """Refuse what is larger than stated: the disk is not the server's."""
        if self.most is not None and count > self.most:
            raise _NotThisError(f"more than the {self.most:,} bytes it may have")


class _Held:
    """A file that takes no more bytes than it may have."""

    def __init__(self, file: IO[bytes], asked: _Asked) -> None:
        self.file, self.asked = file, asked

    def write(self, data: bytes) -> int:
        self.asked.hold(self.file.tell() + len(data))
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _transfer(address: str, part: Path, asked: _Asked) -> None:
    """One request, whose bytes are written as they come."""
    try:
        import pooch
        import requests
    except ImportError as error:
        raise ValueError(NO_POOCH) from error
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={asked.start}-"} if asked.start else {})
    title = f"{part.stem}, from {asked.start / 1e6:,.0f} MB on" if asked.start else part.stem
    with (
        naming(part.parent, BY_ROOT),
        open(part, "r+b" if part.is_file() else "w+b") as file,
        tqdm(desc=title, total=1, unit="B", unit_scale=True, disable=None, leave=False) as bar,
    ):
        file.seek(0, os.SEEK_END)
        hooks = {"response": lambda response, *_, **__: asked.answer(response, file)}
        get = pooch.HTTPDownloader(bar, PACKET, headers=headers, hooks=hooks, timeout=PATIENCE)
        try:
            get(address, _Held(file, asked), None)
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status == 416:  # it has no such byte: the part is not of this file
                file.truncate(0)
            raise _NotThisError(f"status {status}", status in AGAIN) from error
        except requests.RequestException as error:
            raise _NotThisError(f"{type(error).__name__} after {file.tell():,} bytes", True) from error
        if asked.size is not None and file.tell() < asked.size:
            raise _NotThisError(f"an end after {file.tell():,} of {asked.size:,} bytes", True)
