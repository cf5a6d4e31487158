"""Files of JSON lines that grow: the only ones that are ever changed."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from adaptkit.io.files import Signature, canonical, naming, signature, sync_folder
from adaptkit.io.jsons import parse_json
from adaptkit.io.paths import regular


class Log:
    """A file of JSON lines, one mapping of `fields` each, which grows by flushed lines; half a line does not count.

    Any number of processes may read while one, which holds a lock of its own, writes. Of a file that has grown only
    what is new is read.
    """

    def __init__(
        self, path: Path, *fields: str, more: Iterable[str] = (), sound: Callable[[dict[str, Any]], bool] = bool
    ) -> None:
        """Open.

        Args:
            path: of the file, which need not exist.
            fields: of every record.
            more: fields that a record may have.
            sound: whether the values of a record are what they must be.
        """
        self.path, self._fields, self._more, self._sound = path, set(fields), {*fields, *more}, sound
        self.records: list[dict[str, Any]] = []  # what the complete lines say; another list once it is read anew
        self.flaws: list[str] = []  # a sentence for each line that says nothing
        self._seen: Signature | None = None
        self._end = 0  # of the last complete line
        self._count, self._last, self._torn = 0, b"", ""  # lines; the last one; a sentence if there is half a one

    def refresh(self, surely: bool = False) -> None:
        """Read on if the file has changed, or `surely`: what a shared disk says of a file may be seconds old."""
        if surely or signature(self.path) != self._seen:
            self._read()

    def heal(self) -> None:
        """Read on, and cut off the line that a killed writer left torn."""
        self.refresh()
        if self._seen is not None and self._seen[1] > self._end:
            self.append()

    def append(self, *records: dict[str, Any]) -> None:
        """Add lines after the last complete one."""
        with naming(self.path.parent), open(self.path, "ab") as file:
            file.truncate(self._end)
            file.write(lines(records))
            file.flush()
            os.fsync(file.fileno())
        if self._seen is None:  # its name is new
            sync_folder(self.path.parent)

    def days(self) -> float:
        """Days since the file was written, 0 without a file."""
        return (time.time() - self._seen[2] / 1e9) / 86400 if self._seen else 0.0

    def _read(self) -> None:
        before, self._seen = self._seen, None
        try:
            file = open(regular(self.path, "what is read", 2**62), "rb")  # noqa: SIM115 (closed below)
        except FileNotFoundError:
            self._forget()
            return
        with file:
            self._seen = signature(file.fileno())
            if self._seen == before:
                return
            if not (before and self._seen and self._seen[0] == before[0] and self._seen[1] > before[1]):
                self._forget()
            file.seek(self._end - len(self._last))
            if file.read(len(self._last)) != self._last:  # more than grown
                self._forget()
                file.seek(0)
            *whole, torn = file.read().split(b"\n")
        self._take(whole, torn)

    def _forget(self) -> None:
        self.records, self.flaws = [], []
        self._end, self._count, self._last, self._torn = 0, 0, b"", ""

    def _take(self, whole: list[bytes], torn: bytes) -> None:
        """Add what new lines say."""
        self.flaws = [flaw for flaw in self.flaws if flaw != self._torn]
        for number, line in enumerate(whole, self._count + 1):
            record = None
            with suppress(ValueError):
                record = parse_json(line)
            keys = record.keys() if isinstance(record, dict) else set()
            if record is not None and self._fields <= keys <= self._more and self._sound(record):
                self.records.append(record)
            else:
                self.flaws.append(f"{self.path}: line {number} is not a record; `gc` removes it")
        self._end += sum(len(line) + 1 for line in whole)
        self._count, self._last = self._count + len(whole), whole[-1] + b"\n" if whole else self._last
        self._torn = f"{self.path}: the last line is torn; the next writer cuts it off" if torn else ""
        self.flaws = [*[self._torn] * bool(torn), *self.flaws]


def lines(records: Iterable[object]) -> bytes:
    """The text of a log."""
    return b"".join(canonical(record) + b"\n" for record in records)
