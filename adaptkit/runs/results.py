"""One record for each cell of a run. ``result.schema.json`` beside this file says the same for other languages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from adaptkit.io.files import atomic_write, canonical, digest
from adaptkit.io.values import convert


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one method answered in one cell.

    A name before a slash, as in ``"new/accuracy"``, is that of a test set; the task's own has none.

    Attributes:
        method: its name in the recipe, with the options that were set there.
        shots: labelled images per class; 0 where nobody counted.
        seed: of the support and of training.
        protocol: everything the comparison holds fixed, by name; results whose protocols differ are not averaged.
        support: digest of the labelled images' content and labels, in order.
        metrics: by name; accuracies are shares between 0 and 1.
        classes: by test set, each class's name and the share of its images that were answered right, between 0 and 1;
            ``None`` where there is none. Of several labels an image, each one's average precision.
        right: by test set, a "1" for each image that was answered right and a "0" for the others, in order; or a number
            for each image, larger for better, where answers are not right or wrong.
        parameters: numbers that were trained.
        seconds: ``extract`` (what computing its features cost, whoever asked first), ``fit`` and ``predict``.
        memory: peak resident memory of the process by the end of the cell, MB.
        options: every hyperparameter, as adapted.
        versions: of the packages that made the numbers.
        oracle: hyperparameters were chosen on the test images.
        step: of a sequence of tasks, how many were learned by then, from 1; 0 where there is one task.
    """

    method: str
    shots: int = 0
    seed: int = 0
    protocol: Mapping[str, Any] = field(default_factory=dict)
    support: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    classes: Mapping[str, Sequence[tuple[str, float | None]]] = field(default_factory=dict)
    right: Mapping[str, str | Sequence[float]] = field(default_factory=dict)
    parameters: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    memory: float = 0.0
    options: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    oracle: bool = False
    step: int = 0

    @property
    def protocol_hash(self) -> str:
        """Twelve digits that two results share if, and only if, their protocols are equal."""
        return digest(canonical(self.protocol))[:12]

    def save(self, path: Path) -> None:
        """Write the record, atomically, as JSON."""
        record = {**asdict(self), "protocol_hash": self.protocol_hash}
        atomic_write(path, json.dumps(record, indent=1, sort_keys=True).encode())

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a record.

        Raises:
            ValueError: when it is not one, naming the file.
        """
        names = [f.name for f in fields(cls)]
        try:
            record = json.loads(path.read_text())
            if not isinstance(record, dict):
                raise TypeError(f"a {type(record).__name__}")
            stated, hints = record.pop("protocol_hash", None), get_type_hints(cls)
            if odd := sorted({*record} - {*names}):
                raise ValueError(f"unknown field {odd[0]!r}")
            result = cls(**{name: convert(value, hints[name], name) for name, value in record.items()})
            if stated not in (None, result.protocol_hash):
                raise ValueError(f"protocol_hash {stated!r} for a protocol with {result.protocol_hash!r}")
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"a result must be a JSON record of {', '.join(names)}; got {str(path)!r}: {error}"
            ) from error
        return result
