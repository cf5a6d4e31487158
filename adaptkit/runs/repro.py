"""Stored records run again: whether their numbers come out bit for bit, and which input differs where they do not.

Nothing is written but features that are lacking. A cell is run from its record's own protocol over the recipe that
lies beside it, so that a folder from elsewhere will do, where its dataset, backbone and plugins are here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from adaptkit.io.jsons import parse_json, read_json
from adaptkit.io.shots import plain_shots
from adaptkit.io.values import Spec
from adaptkit.runs.circumstances import CODE
from adaptkit.runs.failures import Failure
from adaptkit.runs.folders import RECIPE_FILE
from adaptkit.runs.opened import Opened, key_of, opened
from adaptkit.runs.protocol import Cell
from adaptkit.runs.recipe import build_recipe
from adaptkit.runs.results import Result
from adaptkit.runs.work import Job, make

Status = Literal["equal", "different", "not run"]
Stored = list[Result]  # the records of one cell, one for each step of a sequence
BY_RECIPE = ("dataset", "backbone", "support", "select", "classes", "stream", "bins", "dtype", "precision", "trainer")
"""What a protocol says by the names of a recipe's keys."""
TOLD_IN_A_LINE = 4  # differences of numbers
NONE_NAMED = "none that a record names; stored features may be of batches of another size"
COMPARED = ("options", "searched", "parameters", "images_per_class", "images_left_out", "alike", "classes", "oracle")
"""What must be equal besides metrics and answers."""
CALLED = {"fingerprint": "weights", "images": "images or labels", "prompts": "sentences", "sampler": "sampler's code"}
"""What fields of a protocol are that hold a digest."""


@dataclass(frozen=True)
class Rerun:
    """What became of a record that was run again.

    Attributes:
        method: its name in the recipe.
        shots: labelled images per class.
        seed: of the cell.
        status: whether all numbers are equal bit for bit, some differ, or it could not be run.
        numbers: what differs of what came out, each in words.
        inputs: what differs of what went in, each in words.
        why: it could not be run.
    """

    method: str
    shots: int | str
    seed: int
    status: Status
    numbers: Sequence[str] = field(default_factory=list)
    inputs: Sequence[str] = field(default_factory=list)
    why: str = ""

    def __str__(self) -> str:
        shots = f"{self.shots}-shot, " if self.shots else ""
        said = [f"{self.status:<9}  {self.method}, {shots}seed {self.seed}"]
        said += [self.why] if self.why else []
        more = len(self.numbers) - TOLD_IN_A_LINE
        some = ", ".join(self.numbers[:TOLD_IN_A_LINE]) + f", and {more} more" * (more > 0)
        said += [some] if some else []
        if self.status == "different" and not self.why:
            said.append(f"inputs that differ: {', '.join(self.inputs) or NONE_NAMED}")
        elif self.inputs:
            said.append(f"although these differ: {', '.join(self.inputs)}")
        return "; ".join(said)


def stored_cells(folder: Path) -> tuple[list[Stored], list[str]]:
    """The cells whose records lie in a folder, in the order they are best run, and what is wrong with others.

    Raises:
        ValueError: where there is no record at all.
    """
    found, wrong = dict[Any, Stored](), list[str]()
    for path in sorted(folder.glob("*.json")):
        if path.name == RECIPE_FILE:
            continue
        try:
            result = Result.read(path)
        except ValueError as error:
            wrong.append(" ".join(str(error).split()))
            continue
        key = result.protocol_hash, result.shots, result.seed, result.method, result.tag
        found.setdefault(key, []).append(result)
    if not found and not wrong:
        raise ValueError(f"a run to check must be a folder with records of cells; got {str(folder)!r}, which has none")
    return [sorted(found[key], key=lambda result: result.step) for key in sorted(found)], wrong


def run_again(folder: Path, cells: Sequence[Stored], home: Path) -> Iterator[Rerun]:
    """Run each cell again, in turn, and compare.

    Args:
        folder: of the records, with the ``recipe.json`` beside them.
        cells: as `stored_cells` found them.
        home: of features; those that it has are read.
    """
    gone = dict[Any, Exception]()
    for then in cells:
        try:
            job, setting = open_for(folder, then[0], home, gone)
        except (ValueError, OSError) as error:
            yield became(then[0], "not run", why=" ".join(str(error).split()))
            continue
        made = make(job, home, lambda path: True).outcome
        if isinstance(made, Failure):
            yield became(then[0], "different", why=f"it fails now: {made.cause}")
            continue
        modules = changed_modules(folder, then[0], made[0], setting.code(job.cell))
        numbers = changed_numbers(then, made)
        yield became(
            then[0],
            "different" if numbers else "equal",
            numbers=numbers,
            inputs=[*changed_inputs(then[0], made[0]), *modules],
        )


def became(then: Result, status: Status, **more: Any) -> Rerun:  # noqa: ANN401 (fields of Rerun)
    """What became of a record."""
    return Rerun(then.method, plain_shots(then.shots), then.seed, status, **more)


def open_for(folder: Path, then: Result, home: Path, gone: dict[Any, Exception]) -> tuple[Job, Opened]:
    """The job of a record, and its setting opened.

    Args:
        folder: of the record.
        then: the record.
        home: of features.
        gone: why settings could not be opened, which is tried once for all of their records.

    Raises:
        ValueError: where the record does not say enough, or the setting cannot be opened.
        OSError: the same.
    """
    job = job_of(folder, then)
    setting = key_of(job.recipe, home)
    if setting in gone:
        raise gone[setting]
    try:
        return job, opened(job.recipe, home)
    except (ValueError, OSError) as error:
        gone[setting] = error
        raise


def job_of(folder: Path, then: Result) -> Job:
    """The cell of a record, as the recipe beside it and its own protocol say.

    Raises:
        ValueError: where they do not say enough.
    """
    if not then.protocol.get("dataset"):
        raise ValueError("a record must have the protocol of a run; got none")
    raw = recipe_beside(folder)
    name = str(raw.pop("name", folder.name))
    raw.pop("about", None)
    own = {key: then.protocol[key] for key in BY_RECIPE if key in then.protocol}
    own |= {"search": then.protocol.get("search", "paper"), "sequence": then.protocol.get("sequence", 1)}
    recipe = build_recipe(raw | own, folder / RECIPE_FILE)
    if then.method not in recipe.labels():
        if "(" in then.method:  # its options are not all in its label
            raise ValueError(f"{RECIPE_FILE} must name the method of the record; got {', '.join(recipe.labels())}")
        recipe = replace(recipe, methods=[Spec(then.method)])  # another recipe has written here since
    spec, shots = recipe.labels()[then.method], then.shots or recipe.shots[0]
    recipe = replace(recipe, name=name, methods=[spec], shots=[shots], seeds=[then.seed])
    recipe = replace(recipe, keep="none", keep_answers=False)
    return Job(recipe, Cell(then.method, spec, then.shots, then.seed))


def recipe_beside(folder: Path) -> dict[str, Any]:
    """What the recipe beside some records says.

    Raises:
        ValueError: where there is none that can be read.
    """
    try:
        raw = read_json(folder / RECIPE_FILE)
    except (OSError, ValueError) as error:
        raise ValueError(f"{RECIPE_FILE} must lie beside the records, as a run wrote it; got {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{RECIPE_FILE} must lie beside the records, as a run wrote it; got a {type(raw).__name__}")
    return raw


def changed_numbers(then: Sequence[Result], now: Sequence[Result]) -> list[str]:
    """What differs of what came out."""
    if len(then) != len(now):
        return [f"{len(now)} steps, were {len(then)}"]
    found = []
    for old, new in zip(map(as_read, then), map(as_read, now), strict=True):
        step = f"step {old['step']}: " if old["step"] else ""
        for name in (name for name in old["metrics"] if name in new["metrics"]):  # later versions count more of them
            was, got = old["metrics"][name], new["metrics"][name]
            if repr(was) != repr(got):  # not-a-number is itself here
                found.append(f"{step}{name} {got}, was {was}")
        for name in {**old["right"], **new["right"]}:
            was, got = old["right"].get(name, ""), new["right"].get(name, "")
            if was != got:
                others = sum(a != b for a, b in zip(was, got, strict=False)) + abs(len(was) - len(got))
                found.append(f"{step}{others} images{f' of {name}' * bool(name)} answered otherwise")
        found += [f"{step}{name}" for name in COMPARED if repr(old[name]) != repr(new[name])]
    return found


def changed_inputs(then: Result, now: Result) -> list[str]:
    """What differs of a protocol, the support and versions, each in words."""
    old, new = as_read(then), as_read(now)
    found = []
    for key in {**old["protocol"], **new["protocol"]}:
        was, got = (json.dumps(each["protocol"].get(key), sort_keys=True) for each in (old, new))
        if was != got:
            found.append(CALLED.get(key, f"{key} {got}, was {was}" if len(was + got) < 100 else key))
    found += ["images learned from"] if old["support"] != new["support"] else []
    known = old["versions"]
    for name, got in new["versions"].items():
        if name not in ("git", "code") and name in known and known[name] != got:
            found.append(f"{name} {got}, was {known[name]}")
    return found


def changed_modules(folder: Path, then: Result, now: Result, modules: Mapping[str, str]) -> list[str]:
    """The modules whose code differs, as far as the run wrote down which they were."""
    written = then.versions.get("code", "")
    if written == now.versions.get("code") or then.tag == now.tag:
        return []
    try:
        old = dict(read_json(folder / CODE / f"{written}.json")) if written else {}
    except (OSError, ValueError, TypeError):
        old = {}
    if not old:
        same = then.protocol == as_read(now)["protocol"] and then.versions.get("adaptkit") == now.versions["adaptkit"]
        return ["code, of which module nobody wrote down"] if same or written else []
    names = sorted(name for name in {*old, *modules} if old.get(name) != modules.get(name))
    shown = ", ".join(names[:5]) + f" and {len(names) - 5} more" * (len(names) > 5)
    return [f"code of {shown}"]


def as_read(result: Result) -> dict[str, Any]:
    """A result as its record has it."""
    return parse_json(result.record())
