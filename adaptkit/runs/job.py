"""Run a recipe: extract what is missing, measure every cell that is not done, remember each as it finishes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from adaptkit.features.cache import CachedRows
from adaptkit.features.items import Images, Source
from adaptkit.features.needs import Need
from adaptkit.io.files import atomic_write
from adaptkit.runs import plugins
from adaptkit.runs.build import check_elsewhere, method
from adaptkit.runs.evaluate import evaluate
from adaptkit.runs.evaluation_sets import EvaluationSet, requested
from adaptkit.runs.protocol import Cell, cells, file_name, participants, protocol
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.results import Result
from adaptkit.runs.workspace import Workspace


def run(
    recipe: Recipe, *, home: Path, out: Path, say: Callable[[str], None] = print, progress: bool = True
) -> list[Result]:
    """Run what is not done yet and return every cell's result.

    Args:
        recipe: checked.
        home: where features are kept.
        out: folder for one JSON record per cell, and ``recipe.json``, which says what they are records of.
        say: told, in lines, what happens.
        progress: show bars.
    """
    workspace = Workspace(recipe.setting(), home=home, progress=progress)
    tests = workspace.evaluation_sets()
    if any(tested.task for tested in tests):
        check_elsewhere(recipe)
    fixed = protocol(recipe, workspace, tests)
    shared = participants(workspace)
    paths = {cell: out / f"{file_name(cell, fixed, shared)}.json" for cell in cells(recipe)}
    todo = [cell for cell, path in paths.items() if not path.exists()]
    done = len(paths) - len(todo)
    say(f"{recipe.name}: {len(paths)} cells, {done} done already, {len(todo)} to run on {workspace.device}")
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "recipe.json", recipe.describe().encode())
    for source, need, index in wanted(workspace, todo, tests):
        workspace.cache.fill(source, need, index)
    computed = sum(workspace.cache.computed.values())
    say(
        f"features: {computed:,} rows computed in {workspace.cache.seconds:.1f} s, "
        f"the rest found in {home / 'features'}"
    )
    tasks: dict[tuple[int, int], Any] = {}
    for number, cell in enumerate(todo, 1):
        where = (cell.shots, cell.seed)
        if where not in tasks:
            tasks = {where: workspace.task(*where)}
        answers: dict[str, Tensor] = {}
        result = evaluate(
            method(cell.spec),
            tasks[where],
            tests,
            seed=cell.seed,
            trainer=recipe.trainer,
            bins=recipe.bins,
            keep=answers.__setitem__,
            where={"method": cell.label, "shots": cell.shots, "protocol": fixed, "oracle": recipe.select == "oracle"},
        )
        if recipe.keep_answers:  # before the record, which says that the cell is done
            atomic_write(
                paths[cell].with_suffix(".safetensors"), save({n or "own": a.contiguous() for n, a in answers.items()})
            )
        result.save(paths[cell])
        plugins.manager().hook.report(result=result)
        if progress:
            accuracy = result.metrics.get("accuracy")
            shown = "" if accuracy is None else f"{100 * accuracy:.1f} %"
            print(
                f"\r{number}/{len(todo)} {cell.label} {cell.shots}-shot, seed {cell.seed}: {shown}\033[K",
                end="",
                file=sys.stderr,
            )
    if progress and todo:
        print(file=sys.stderr)
    return [Result.read(path) for path in paths.values()]


def wanted(
    workspace: Workspace, todo: list[Cell], tests: Sequence[EvaluationSet]
) -> Iterator[tuple[Source, Need, list[int]]]:
    """Rows that the cells will read, by source and need, each once."""
    rows: dict[tuple[int, Need], tuple[Source, dict[int, None]]] = {}

    def want(images: Images | None, needs: list[Need]) -> None:
        if images is None or not isinstance(images.rows, CachedRows):
            return
        for need in needs:
            if need.stored and not need.fresh:
                _, index = rows.setdefault((id(images.rows.source), need), (images.rows.source, {}))
                index.update(dict.fromkeys(images.index.tolist()))

    tasks = {(c.shots, c.seed): None for c in todo}
    built = {name: method(spec) for name, spec in {c.label: c.spec for c in todo}.items()}
    for where in tasks:
        task = workspace.task(*where)
        for name in {c.label for c in todo if (c.shots, c.seed) == where}:
            m = built[name]
            want(task.support, m.all_needs(of_support=True))
            want(task.val if m.grid() or any(c.grid() for c in m.children_methods()) else None, m.all_needs())
    for m in built.values():
        for tested in requested(tests, m.output):
            want(tested.images, m.all_needs())
    for (_, need), (source, index) in rows.items():
        yield source, need, list(index)
