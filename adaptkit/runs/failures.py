"""Cells that failed: why in one line, the traceback in a file beside, and what to lower where memory ran out."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import torch

from adaptkit.io.files import atomic_write, canonical, digest
from adaptkit.io.jsons import read_json
from adaptkit.io.shots import plain_shots, read_shots
from adaptkit.io.values import convert
from adaptkit.methods.method import Method, Schedule

FAILED = "failed"  # beside the records
LONGEST = 300  # characters of a cause
HUNGRY = ("views", "chunk", "crops", "batch", "tile")  # what options are called that memory grows with


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A cell that has no result.

    Attributes:
        method: its name in the recipe, with the options that were set there.
        shots: labelled images per class that were asked for.
        seed: of the support and of training.
        protocol: everything the comparison holds fixed, by name.
        tag: of the cell, as a result would have it.
        cause: in one line.
        file: with the traceback, from the folder of the records.
    """

    method: str
    shots: int = 0
    seed: int = 0
    protocol: Mapping[str, Any] = field(default_factory=dict)
    tag: str = ""
    cause: str = ""
    file: str = ""

    @property
    def protocol_hash(self) -> str:
        """Twelve digits, as a result's."""
        return digest(canonical(self.protocol))[:12]

    def files(self, error: BaseException) -> dict[str, bytes]:
        """The traceback and, beside it, the record, by their paths from the folder of the records."""
        record = {**asdict(self), "shots": plain_shots(self.shots)}
        return {
            self.file: "".join(traceback.format_exception(error)).encode(),
            Path(self.file).with_suffix(".json").as_posix(): json.dumps(record, indent=1, sort_keys=True).encode(),
        }

    def save(self, out: Path, error: BaseException) -> None:
        """Write the record and, beside it, the traceback."""
        for name, data in self.files(error).items():
            atomic_write(out / name, data)


def file_of(name: str) -> str:
    """Where the traceback of a cell goes, from the folder of the records."""
    return f"{FAILED}/{name}.txt"


def forget_failure(out: Path, name: str) -> None:
    """Remove what says that a cell failed: it has a result now."""
    for path in ((out / file_of(name)).with_suffix(".json"), out / file_of(name)):
        path.unlink(missing_ok=True)


def read_failure(out: Path, name: str) -> Failure | None:
    """The failure of a cell, if it has one that can be read."""
    try:
        record, hints = read_json((out / file_of(name)).with_suffix(".json")), get_type_hints(Failure)
        record["shots"] = read_shots(record["shots"])
        return Failure(**{f.name: convert(record[f.name], hints[f.name], f.name) for f in fields(Failure)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_failures(out: Path) -> Iterator[Failure]:
    """Every failure beside some records."""
    for path in sorted((out / FAILED).glob("*.json")):
        if found := read_failure(out, path.name.removesuffix(".json")):
            yield found


def cause_of(error: BaseException, built: Method | None, batch_size: int | str) -> str:
    """Why a cell failed, in one line.

    Args:
        error: that was raised.
        built: the method, whose options may be what to lower.
        batch_size: of the towers.
    """
    text = " ".join(str(error).split()) or "no message"
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} ..."
    if isinstance(error, SystemExit):
        text = f"{text}: a method must not end the process"
    if out_of_memory(error):
        options = {**(hungry(built) if built else {}), "batch_size": batch_size}
        text = f"{text}; lower {' or '.join(f'{name} ({value})' for name, value in options.items())}"
    return f"{type(error).__name__}: {text}"


def out_of_memory(error: BaseException) -> bool:
    """Whether a machine, or its accelerator, has no memory left."""
    allocating = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or allocating


def hungry(built: Method) -> dict[str, Any]:
    """The options of a method, and of those below it, that memory grows with, by name."""
    found: dict[str, Any] = {}
    for f in fields(built):
        value = getattr(built, f.name, None)
        if isinstance(value, int) and any(word in f.name for word in HUNGRY):
            found[f.name] = value
        if isinstance(value, Schedule):
            found[f"{f.name}.batch_size"] = value.batch_size
    for child in built.children_methods():
        found |= {f"base's {name}": value for name, value in hungry(child).items()}
    return found


def interrupted(error: BaseException) -> bool:
    """Whether somebody pressed Ctrl-C, which Lightning turns into a way out of its own."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KeyboardInterrupt):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
