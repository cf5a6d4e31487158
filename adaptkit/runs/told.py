"""What a cell answered, image by image: kept beside its record, and which images those are, once for all cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save
from torch import Tensor

from adaptkit.features.cache import CachedRows
from adaptkit.io.files import canonical, digest, signature
from adaptkit.io.jsons import parse_json, read_json
from adaptkit.io.paths import read_file
from adaptkit.methods.task import Task
from adaptkit.runs.evaluation_sets import EvaluationSet
from adaptkit.runs.results import Result, digest_of

PREDICTIONS, IMAGES = "predictions", "images"  # folders beside the records
CLASS_COLUMNS = ("predicted", "others")  # columns of class ids
DIMENSIONS = {"others": 2, "likely": 2, "map": 3, "mask": 3}  # of columns with several entries an image
UNTOLD_COLUMNS = ("pixel_auroc",)  # columns that have no number for some images


@dataclass(frozen=True)
class Told:
    """What was answered about one test set.

    Attributes:
        name: of the set; "" for the task's own.
        asked: which images it has, their labels and their classes' names; see `asked_of`.
        columns: by name, a row for each image; see `Evaluation.kept_of`.
    """

    name: str
    asked: Mapping[str, Any]
    columns: Mapping[str, np.ndarray]


@dataclass
class Telling:
    """What a cell told so far, by step and test set, and the images of test sets that are known already."""

    known: dict[int, tuple[EvaluationSet, bytes]] = field(default_factory=dict)
    steps: dict[int, list[tuple[str, bytes, dict[str, np.ndarray]]]] = field(default_factory=dict)

    def note(self, step: int, task: Task, tested: EvaluationSet, columns: Mapping[str, Tensor]) -> None:
        """Take what was answered about one set."""
        if not columns:
            return
        if id(tested) not in self.known:
            self.known[id(tested)] = tested, canonical(asked_of(task, tested))  # held, so that no other has its id
        arrays = {name: slim(name, column.numpy(), tested.among) for name, column in columns.items()}
        self.steps.setdefault(step, []).append((tested.name, self.known[id(tested)][1], arrays))

    def told(self, step: int) -> list[Told]:
        """What was told by then, test set by test set."""
        return [Told(name, parse_json(asked), columns) for name, asked, columns in self.steps.get(step, [])]


def asked_of(task: Task, tested: EvaluationSet) -> dict[str, Any]:
    """Which images a test set has, in order, as plain values.

    Returns:
        ``source``, the dataset's name; ``kind`` of the task; ``names`` of all classes; ``among``, those that answers
        were chosen among, where not all; ``parts``, rows of the set by name; ``outside``, where they are of no class;
        and by image ``images``, its path from the dataset or its number, ``digests`` and ``labels``, ``None`` where
        it has none. A label is a class id, or a list of these.
    """
    images, index = tested.images, tested.images.index.tolist()
    source = images.rows.source if isinstance(images.rows, CachedRows) else None
    where = getattr(source, "where", int)
    targets = None if tested.outside or images.targets is None else images.targets.cpu()
    labels: Sequence[Any] | None = None
    if targets is not None and targets.dim() == 1:
        labels = targets.tolist()
    elif targets is not None and targets.dim() == 2:
        labels = [row.nonzero()[:, 0].tolist() for row in targets]
    return {
        "source": source.name if source else "",
        "kind": task.kind,
        "names": list((tested.task or task).labelnames),
        "among": None if tested.among is None else list(tested.among),
        "parts": {name: [rows.start, rows.stop] for name, rows in tested.parts.items()},
        "outside": tested.outside,
        "images": [where(i) for i in index],
        "digests": [source.key(i) for i in index] if source else [],
        "labels": labels,
    }


def slim(name: str, column: np.ndarray, among: Sequence[int] | None) -> np.ndarray:
    """A column in the fewest bytes: class ids, which are those of all classes, as small whole numbers."""
    if name in CLASS_COLUMNS and among is not None:
        column = np.asarray(among)[column]
    if name in CLASS_COLUMNS or name == "met":
        return column.astype(np.min_scalar_type(int(column.max(initial=0))))
    return column


def answers_digest(result: Result) -> str:
    """What ties predictions to their record: the cell, and all that it answered."""
    said = {name: getattr(result, name) for name in ("tag", "method", "shots", "seed", "step", "metrics", "right")}
    return digest_of(said)


def told_files(
    kept: Telling, results: Sequence[Result], name: str, there: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    """The files of a cell's predictions, and those of its images that are not there yet.

    Args:
        kept: what was told.
        results: of the cell, step by step.
        name: of the cell on disk.
        there: whether a file, by its path from the folder of records, is there already.
    """
    for step, result in enumerate(results, 1):
        sets, arrays = list[dict[str, Any]](), dict[str, np.ndarray]()
        for number, (own, asked, columns) in enumerate(kept.steps.get(step, [])):
            images = digest(asked)
            if not there(path := f"{IMAGES}/{images}.json"):
                yield path, asked
            sets.append({"name": own, "images": images, "columns": list(columns)})
            arrays |= {f"{number}.{column}": np.ascontiguousarray(values) for column, values in columns.items()}
        if sets:
            about = {"record": answers_digest(result), "content": content_digest(arrays), "sets": sets}
            yield file_beside(name, result.step), save(arrays, {"about": canonical(about).decode()})


def file_beside(name: str, step: int) -> str:
    """Where the predictions of a record go, from the folder of the records."""
    return f"{PREDICTIONS}/{name}{f'.step-{step}' * (step > 1)}.safetensors"


def content_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Digest of arrays, their types and their shapes."""
    said = [[name, str(a.dtype), list(a.shape), digest(a.tobytes())] for name, a in sorted(arrays.items())]
    return digest(canonical(said))


def read_told(path: Path, result: Result) -> list[Told]:
    """The predictions of a record, test set by test set.

    Raises:
        ValueError: when the file is not as it was written, or another record's, naming it.
        OSError: when one cannot be read.
    """
    data = read_file(path)
    try:
        length = int.from_bytes(data[:8], "little")  # of the header, which safetensors reads from files alone
        about = parse_json(parse_json(data[8 : 8 + length])["__metadata__"]["about"])
        arrays = load(data)
        if content_digest(arrays) != about["content"]:
            raise ValueError("its numbers were changed after they were written")
        if about["record"] != answers_digest(result):
            raise ValueError(f"it is not that of the record beside it, {result.method}, seed {result.seed}")
        found = list[Told]()
        for number, tested in enumerate(about["sets"]):
            columns = {name: arrays[f"{number}.{name}"] for name in tested["columns"]}
            found.append(Told(tested["name"], read_asked(path.parents[1] / IMAGES, tested["images"]), columns))
            hold_rows(found[-1])
            hold_classes(found[-1])
        return found
    except Exception as error:  # safetensors has an error of its own, and a header may hold anything
        raise ValueError(
            f"predictions must be as a run writes them; got {str(path)!r}: {error}; "
            "remove that file and the record, and run again"
        ) from error


def hold_rows(told: Told) -> None:
    """Refuse answers that are not one for each image, or no numbers.

    Raises:
        ValueError: saying what they must be.
    """
    asked, count = told.asked, len(told.asked["images"])
    beside = [rows for rows in (asked["labels"], asked["digests"] or None) if rows is not None]
    if any(len(each) != count for each in (*told.columns.values(), *beside)):
        raise ValueError(f"it must answer each of {count} images")
    for name, column in told.columns.items():
        known = np.isfinite(column) | (np.isnan(column) if name in UNTOLD_COLUMNS else False)
        if column.ndim != DIMENSIONS.get(name, 1) or not known.all():
            raise ValueError(f"{name} must be finite, one row an image; got {column.dtype} {column.shape}")
    hold_maps(told.columns)


def hold_maps(columns: Mapping[str, np.ndarray]) -> None:
    """Refuse maps that are no bytes, or whose masks are of another size; see `small_maps`.

    Raises:
        ValueError: saying what they must be.
    """
    if not {"map", "mask"} & columns.keys():
        return
    maps, masks = (columns.get(name, np.zeros((0, 0, 0))) for name in ("map", "mask"))
    bits = (*maps.shape[:2], -(-maps.shape[2] // 8))
    if not maps.size or maps.dtype != np.uint8 or masks.dtype != np.uint8 or masks.shape != bits:
        raise ValueError(f"maps must be bytes, their masks bits of one size; got {maps.shape} and {masks.shape}")


def hold_classes(told: Told) -> None:
    """Refuse labels and answers that are no class of those that there are.

    Raises:
        ValueError: saying what they must be.
    """
    asked, labels = told.asked, told.asked["labels"] or []
    if not all(isinstance(name, str) for name in asked["names"]) or len({type(each) for each in labels}) > 1:
        raise ValueError("names must be text, and labels numbers or lists of them")
    if asked["kind"] == "ranking":  # answers are items of a gallery
        return
    given = [each for label in labels for each in (label if isinstance(label, list) else [label])]
    answers = [told.columns[name] for name in CLASS_COLUMNS if name in told.columns]
    most = [int(each.max(initial=0)) for each in answers]
    whole = all(each.dtype.kind == "u" for each in answers)
    if not whole or not all(type(c) is int and 0 <= c < len(asked["names"]) for c in (*given, *most)):
        raise ValueError(f"it must answer with one of {len(asked['names'])} classes; got another")


def read_asked(folder: Path, name: str) -> dict[str, Any]:
    """Which images a test set has.

    Raises:
        ValueError: when they are not those of its name.
    """
    path = folder / f"{name}.json"
    return asked_in(path, name, signature(path))


@lru_cache(maxsize=8)
def asked_in(path: Path, name: str, seen: object) -> dict[str, Any]:
    """What a file says that many cells share; read again when it changes. Nobody may write to it."""
    asked = read_json(path)
    if digest(canonical(asked)) != name:
        raise ValueError(f"{str(path)!r} was changed after it was written")
    return asked
