"""One record for each cell of a run. ``result.schema.json`` beside this file says the same for other languages.

A record carries a digest of itself and the tag of the cell that it answers: one that was edited, cut or put in the
place of another is told from one that a run wrote. Records of before carry neither, and are read as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from adaptkit.io.files import atomic_write, canonical, digest
from adaptkit.io.jsons import read_json
from adaptkit.io.shots import plain_shots, read_shots
from adaptkit.io.values import convert
from adaptkit.methods.searched import Searched


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one method answered in one cell.

    A name before a slash, as in ``"new/accuracy"``, is that of a test set; the task's own has none.

    Attributes:
        method: its name in the recipe, with the options that were set there.
        shots: labelled images per class; 0 where nobody counted.
        seed: of the support and of training.
        step: of a sequence of tasks, how many were learned by then, from 1; 0 where there is one task.
        tag: of the cell: what made its numbers, in twelve digits; "" where no run did.
        protocol: everything the comparison holds fixed, by name; results whose protocols differ are not averaged.
        support: digest of the labelled images' content and labels, in order; it names the file in ``supports`` that
            lists them.
        images_per_class: labelled images that there were of each class; fewer than `shots` where a class has no more.
        images_left_out: images of the dataset that cannot be read, which nothing has seen.
        alike: groups of classes that share one text, where the method knows classes by their text alone and so cannot
            tell them apart.
        metrics: by name; accuracies are shares between 0 and 1.
        classes: by test set, each class's name and the share of its images that were answered right, between 0 and 1;
            ``None`` where there is none. Of several labels an image, each one's average precision.
        right: by test set, a "1" for each image that was answered right and a "0" for the others, in order; or a number
            for each image, larger for better, where answers are not right or wrong.
        parameters: numbers that were trained.
        seconds: ``extract`` (what computing its features cost, whoever asked first), ``fit`` and ``predict``.
        memory: peak resident memory of the process by the end of the cell, MB.
        options: every hyperparameter, as adapted.
        searched: by hyperparameter, what its search saw, and at which edge of its grid it ended; see `Searched`.
        versions: of the packages that made the numbers; ``git`` is the commit of the recipe's repository, ``code`` the
            file in ``code`` that lists the modules, ``threads`` and ``processor`` are those of the machine.
        oracle: hyperparameters were chosen on the test images.
    """

    method: str
    shots: int = 0
    seed: int = 0
    step: int = 0
    tag: str = ""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    support: str = ""
    images_per_class: Sequence[int] = field(default_factory=list)
    images_left_out: int = 0
    alike: Sequence[Sequence[str]] = field(default_factory=list)
    metrics: Mapping[str, float] = field(default_factory=dict)
    classes: Mapping[str, Sequence[tuple[str, float | None]]] = field(default_factory=dict)
    right: Mapping[str, str | Sequence[float]] = field(default_factory=dict)
    parameters: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    memory: float = 0.0
    options: str = ""
    searched: Mapping[str, Searched] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    oracle: bool = False

    @property
    def protocol_hash(self) -> str:
        """Twelve digits that two results share if, and only if, their protocols are equal."""
        return digest(canonical(self.protocol))[:12]

    def record(self) -> bytes:
        """The result as JSON, with a digest of itself."""
        record = {**asdict(self), "shots": plain_shots(self.shots), "protocol_hash": self.protocol_hash}
        record = json.loads(json.dumps(record))  # as it will be read
        return json.dumps({**record, "digest": digest_of(record)}, indent=1, sort_keys=True).encode()

    def save(self, path: Path) -> None:
        """Write the record, atomically, as JSON."""
        atomic_write(path, self.record())

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a record.

        Raises:
            ValueError: when it is not one, naming the file.
        """
        names = [f.name for f in fields(cls)]
        try:
            record = read_json(path)
            if not isinstance(record, dict):
                raise TypeError(f"a {type(record).__name__}")
            written = record.pop("digest", None)
            if written not in (None, found := digest_of(record)):
                raise ValueError(f"it was changed after it was written: its digest is {found}, not {written}")
            stated, hints = record.pop("protocol_hash", None), get_type_hints(cls, include_extras=True)
            if odd := sorted({*record} - {*names}):
                raise ValueError(f"unknown field {odd[0]!r}")
            record |= {"shots": read_shots(record["shots"])} if "shots" in record else {}
            result = cls(**{name: convert(value, hints[name], name) for name, value in record.items()})
            if stated not in (None, result.protocol_hash):
                raise ValueError(f"protocol_hash {stated!r} for a protocol with {result.protocol_hash!r}")
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(
                f"a result must be a JSON record of {', '.join(names)}; got {str(path)!r}: {error}"
            ) from error
        return result

    @classmethod
    def read_own(cls, path: Path, tag: str) -> Result:
        """Read the record that a run wrote for one cell.

        Raises:
            ValueError: when it is none, was changed, or answers another cell, naming the file.
        """
        result = cls.read(path)
        if result.tag != tag:
            answered = f"that of {result.method}, seed {result.seed}" if result.tag else "one without a tag"
            raise ValueError(f"a record must be that of its own cell, {tag}; got {str(path)!r}, {answered}")
        return result


def digest_of(record: Mapping[str, Any]) -> str:
    """Digest of a record's values, without its digest."""
    return digest(json.dumps(record, sort_keys=True, separators=(",", ":")).encode())
