"""The rows that cells will read, extracted before the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adaptkit.features.cache import CachedRows
from adaptkit.features.items import Images, Source
from adaptkit.features.needs import Need
from adaptkit.methods.method import Method
from adaptkit.runs.build import method
from adaptkit.runs.evaluation_sets import EvaluationSet, requested
from adaptkit.runs.failures import cause_of, out_of_memory
from adaptkit.runs.protocol import Cell
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.workspace import Workspace


def fill(
    recipe: Recipe,
    workspace: Workspace,
    todo: list[Cell],
    tests: Sequence[EvaluationSet],
    shard: tuple[int, int] = (1, 1),
) -> str:
    """Extract what some cells will read, and say in a line what that was.

    What one method's need cannot be extracted for is left to its cells, which fail by it. Where nothing can be
    extracted from some images, all cells would. Of a shard ``(i, n)`` only the i-th of n parts of every source's rows.

    Raises:
        ValueError: when memory is too small for a batch.
    """
    (i, n), good, bad = shard, set[int](), dict[int, Exception]()
    for source, need, index in wanted(workspace, todo, tests):
        try:
            workspace.cache.fill(source, need, index[len(index) * (i - 1) // n : len(index) * i // n])
            good.add(id(source))
        except Exception as error:
            if out_of_memory(error):
                raise ValueError(f"{recipe.name}: {cause_of(error, None, recipe.batch_size)}") from error
            bad.setdefault(id(source), error)
    for source_id, first in bad.items():
        if source_id not in good:
            raise first
    cache = workspace.cache
    rows, folder = sum(cache.computed.values()), cache.store.root
    return f"features: {rows:,} rows computed in {cache.seconds:.1f} s, the rest found in {folder}"


def readable(built: Method) -> bool:
    """Whether a method can say what it reads; one that cannot fails in its cells."""
    try:
        built.all_needs(), built.all_needs(of_support=True), built.grid(), [c.grid() for c in built.children_methods()]
    except Exception:
        return False
    return True


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
    built = {name: m for name, spec in {c.label: c.spec for c in todo}.items() if readable(m := method(spec))}
    for where in tasks:
        task = workspace.task(*where)
        for m in [built[c.label] for c in todo if (c.shots, c.seed) == where and c.label in built]:
            want(task.support, m.all_needs(of_support=True))
            want(task.val if m.grid() or any(c.grid() for c in m.children_methods()) else None, m.all_needs())
    for m in built.values():
        for tested in requested(tests, m.output):
            want(tested.images, m.all_needs())
    for (_, need), (source, index) in rows.items():
        yield source, need, list(index)
