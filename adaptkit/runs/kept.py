"""What stands in a folder of records for the cells of a recipe: results, failures, damage, nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adaptkit.io.files import atomic_write, ensure_writable
from adaptkit.io.paths import read_file
from adaptkit.runs.failures import Failure, read_failure
from adaptkit.runs.protocol import tag_in
from adaptkit.runs.results import Result


class Finished(list[Result]):
    """The results of a run.

    Attributes:
        failures: cells that failed.
        missing: cells of the recipe that neither this process nor, so far, another has done.
    """

    def __init__(self, results: Sequence[Result], failures: Sequence[Failure] = (), missing: int = 0) -> None:
        super().__init__(results)
        self.failures, self.missing = failures, missing


def keep_described(text: bytes, out: Path, working: bool) -> None:
    """Write ``recipe.json``, unless it is there; where records are to follow, find out now whether they can."""
    if working:
        ensure_writable(out)
    path = out / "recipe.json"
    if not path.is_file() or read_file(path) != text:
        atomic_write(path, text)


def done(out: Path, name: str) -> list[Result] | None:
    """A cell's results, where its record is there and sound."""
    try:
        return read_cell(out, name)
    except ValueError:
        return None


def read_cell(out: Path, name: str) -> list[Result] | None:
    """A cell's results, in the order of steps, or ``None`` where it is not done.

    Raises:
        ValueError: for a record that is not as it was written, or another cell's, naming the file.
    """
    if not (out / f"{name}.json").exists():
        return None
    paths = [out / f"{name}.json", *out.glob(f"{name}.step-*.json")]
    found = [Result.read_own(path, tag_in(name)) for path in paths]
    count, steps = int(found[0].protocol.get("sequence", 1)), sorted(result.step for result in found)
    if count > 1 and steps != [*range(1, count + 1)]:
        raise ValueError(f"{paths[0]} must have the records of steps 1 to {count} beside it; got {steps}")
    return sorted(found, key=lambda result: result.step)


def damaged(out: Path, names: Sequence[str], recompute: bool) -> list[str]:
    """What is wrong with records of some cells, each in one line.

    Raises:
        ValueError: for the first, unless they are to be computed again.
    """
    wrong = []
    for name in names:
        try:
            read_cell(out, name)
        except ValueError as error:
            wrong.append(" ".join(str(error).split()))
    if wrong and not recompute:
        more = f", and {len(wrong) - 1} more like it" * (len(wrong) > 1)
        raise ValueError(f"{wrong[0]}{more}; --recompute runs what is damaged again")
    return wrong


def collect(out: Path, names: Sequence[str]) -> Finished:
    """What stands in a folder for some cells."""
    results: list[Result] = []
    failures, missing = [], 0
    for name in names:
        if found := done(out, name):
            results += found
        elif failure := read_failure(out, name):
            failures.append(failure)
        else:
            missing += 1
    return Finished(results, failures, missing)
