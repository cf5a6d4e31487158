"""Runs: folders of results, as ``adaptkit run`` leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adaptkit.io.jsons import read_json
from adaptkit.io.paths import resolved
from adaptkit.io.shots import plain_shots
from adaptkit.io.values import Spec, convert
from adaptkit.report.edges import edge_lines
from adaptkit.report.errors.keepers import InFolders
from adaptkit.report.table import Table, fewer
from adaptkit.runs.failures import read_failures
from adaptkit.runs.folders import RECIPE_FILE
from adaptkit.runs.published import Published
from adaptkit.runs.results import Result


@dataclass(frozen=True)
class Run:
    """A folder of results.

    Attributes:
        folder: where it is.
        dataset: that the recipe names; "" where there is no recipe.
        results: one for each cell.
        published: what the recipe quotes, each with its backbone.
        notes: what a reader of its numbers must know.
    """

    folder: Path
    dataset: str
    results: Sequence[Result]
    published: Sequence[Published] = ()
    notes: Sequence[str] = ()


def read_results(*runs: Path | str) -> Table:
    """Results of one or more runs, from the folders that they lie in: ``read_results("results/toy").frame()``.

    Returns:
        A table of all cells; accuracies are between 0 and 1 in its results, in percent where it is shown.

    Raises:
        ValueError: when a folder has no results, or two answer one cell differently.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import adaptkit as ak
    >>> folder, (task, test) = Path(tempfile.mkdtemp()), ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.compare(task, test, ["zero-shot"])[0].save(folder / "one.json")  # as a run leaves one for each cell
    >>> ak.read_results(folder)[0].method
    'zero-shot'
    """
    found = read_runs(runs)
    return Table([result for run in found for result in run.results]).kept_by(InFolders([run.folder for run in found]))


def read_runs(folders: Sequence[Path | str]) -> list[Run]:
    """Runs from their folders.

    Raises:
        ValueError: when a folder has no results, or two answer one cell differently.
    """
    runs = [read_run(Path(folder)) for folder in dict.fromkeys(resolved(f) for f in folders)]
    seen: dict[Any, tuple[Result, Path]] = {}
    kept = []
    for run in runs:
        fresh = []
        for result in run.results:
            before, where = seen.setdefault(cell(result), (result, run.folder))
            if where == run.folder:
                fresh.append(result)
            elif not same_replies(before, result):
                where_both = f"{str(where)!r} and {str(run.folder)!r}"
                raise ValueError(
                    f"runs must not answer one cell differently; got {result.method} at {plain_shots(result.shots)} "
                    f"shots, seed {result.seed}, in {where_both}; compare these one by one"
                )
        kept.append(replace(run, results=fresh))
    return kept


def read_run(folder: Path) -> Run:
    """One run. Of several answers to one cell, as a method leaves whose code was changed, the one written last counts.

    Raises:
        ValueError: when the folder has no results, or one that cannot be read.
    """
    paths = [path for path in folder.glob("*.json") if path.name != RECIPE_FILE]
    if not paths:
        lost = sum(1 for _ in read_failures(folder))
        there = f"has none{f', and {lost} failed cells' * (lost > 0)}" if folder.is_dir() else "does not exist"
        raise ValueError(f"a run must be a folder of results; got {str(folder)!r}, which {there}")
    cells: dict[Any, Result] = {}
    stale = dict[str, None]()
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name)):
        result = Result.read(path)
        before = cells.get(cell(result))
        if before and not same_replies(before, result):
            stale[result.method] = None
        cells[cell(result)] = result
    notes = [f"{folder.name} has older answers of {', '.join(stale)}; those written last are shown"] if stale else []
    notes += [f"{folder.name}, {line}" for line in (*fewer([*cells.values()]), *edge_lines([*cells.values()]))]
    found = {key[:4] for key in cells}
    if failures := [f for f in read_failures(folder) if (f.method, f.shots, f.seed, f.protocol_hash) not in found]:
        named = ", ".join(dict.fromkeys(f.method for f in failures))
        notes.append(
            f"{folder.name} has {len(failures)} failed cell{'s' * (len(failures) > 1)}, of {named}; run it again"
        )
    dataset, order, published = read_described(folder / RECIPE_FILE)
    place = {name: i for i, name in enumerate(order)}
    results = sorted(cells.values(), key=lambda r: (place.get(r.method, len(place)), r.shots, r.seed, r.step))
    return Run(folder, dataset, results, published, notes)


def read_described(path: Path) -> tuple[str, list[str], list[Published]]:
    """A recipe's dataset, its methods' names, and what it quotes, each with its backbone; nothing without a recipe."""
    if not path.exists():
        return "", [], []
    try:
        recipe = read_json(path)
        quotes = convert(recipe.get("published", []), list[Published], "published")
        named = [replace(quote, backbone=quote.backbone or recipe["backbone"]) for quote in quotes]
        dataset = convert(recipe["dataset"], str, "dataset")
        return dataset, [Spec.of(spec).label for spec in recipe.get("methods", [])], named
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"a run's recipe must be as 'adaptkit run' writes it; got {str(path)!r}: {error}") from error


def cell(result: Result) -> tuple[str, int, int, str, int]:
    """What makes two results answers to one question."""
    return result.method, result.shots, result.seed, result.protocol_hash, result.step


def same_replies(one: Result, two: Result) -> bool:
    """Whether a method answered the same twice, whatever it cost; a metric that one of both lacks tells nothing."""
    both = one.metrics.keys() & two.metrics.keys()
    return one.right == two.right and all(one.metrics[name] == two.metrics[name] for name in both)
