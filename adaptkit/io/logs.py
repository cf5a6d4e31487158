"""Files of JSON lines that grow: the only ones that are ever changed."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from adaptkit.io.files import Signature, canonical, naming, signature, sync_folder
from adaptkit.io.jsons import parse_json
from adaptkit.io.paths import read_file


class Log:
    """A file of JSON lines, one mapping of `fields` each, which grows by flushed lines; half a line does not count.

    Any number of processes may read while one, which holds a lock of its own, writes.
    """

    def __init__(self, path: Path, *fields: str, sound: Callable[[dict[str, Any]], bool] = bool) -> None:
        """Open.

        Args:
            path: of the file, which need not exist.
            fields: of every record.
            sound: whether the values of a record are what they must be.
        """
        self.path, self._fields, self._sound = path, set(fields), sound
        self.records: list[dict[str, Any]] = []  # what the complete lines say
        self.flaws: list[str] = []  # a sentence for each line that says nothing
        self._seen: Signature | None = None
        self._end = 0  # of the last complete line

    def refresh(self) -> None:
        """Read the file again if it has changed."""
        if (now := signature(self.path)) != self._seen:
            self._read(now)

    def heal(self) -> None:
        """Read the file again, and cut off the line that a killed writer left torn."""
        self._read(signature(self.path))
        if self._seen is not None and self._seen[1] > self._end:
            self.append()

    def append(self, *records: dict[str, Any]) -> None:
        """Add lines after the last complete one."""
        with naming(self.path.parent), open(self.path, "ab") as file:
            file.truncate(self._end)
            file.write(lines(records))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.path.parent)

    def days(self) -> float:
        """Days since the file was written, 0 without a file."""
        return (time.time() - self._seen[2] / 1e9) / 86400 if self._seen else 0.0

    def _read(self, now: Signature | None) -> None:
        *whole, torn = read_file(self.path).split(b"\n") if now else [b""]
        self._seen, self._end = now, sum(len(line) + 1 for line in whole)
        self.records, self.flaws = [], [f"{self.path}: the last line is torn; the next writer cuts it off"] * bool(torn)
        for number, line in enumerate(whole, 1):
            record = None
            with suppress(ValueError):
                record = parse_json(line)
            if isinstance(record, dict) and record.keys() == self._fields and self._sound(record):
                self.records.append(record)
            else:
                self.flaws.append(f"{self.path}: line {number} is not a record; `gc` removes it")


def lines(records: Iterable[object]) -> bytes:
    """The text of a log."""
    return b"".join(canonical(record) + b"\n" for record in records)
