"""The rows that cells will read, extracted before the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from adaptkit.features.cache import CachedRows, FeatureCache
from adaptkit.features.composites import part_read
from adaptkit.features.items import Images, Source
from adaptkit.features.needs import Need
from adaptkit.features.parts import Index
from adaptkit.methods.method import Method
from adaptkit.methods.unlabelled import pool_reads
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
    (i, n), by_source = shard, dict[int, tuple[Source, dict[Need, Index]]]()
    for source, need, index in wanted(workspace, todo, tests):
        mine = index[len(index) * (i - 1) // n : len(index) * i // n]
        by_source.setdefault(id(source), (source, {}))[1][need] = mine
    good, bad = set[int](), dict[int, Exception]()
    for source, needs in by_source.values():
        failed = fill_source(workspace.cache, source, needs)
        for error in failed.values():
            if out_of_memory(error):
                raise ValueError(f"{recipe.name}: {cause_of(error, None, recipe.batch_size)}") from error
            bad.setdefault(id(source), error)
        if len(failed) < len(needs):
            good.add(id(source))
    for source_id, first in bad.items():
        if source_id not in good:
            raise first
    cache = workspace.cache
    rows, folder = sum(cache.computed.values()), cache.store.root
    return f"features: {rows:,} rows computed in {cache.seconds:.1f} s, the rest found in {folder}"


def fill_source(cache: FeatureCache, source: Source, needs: Mapping[Need, Index]) -> dict[Need, Exception]:
    """Extract what some needs want of a source, each item opened once for all; where that fails, one by one.

    Returns:
        what went wrong, by need.
    """
    try:
        cache.fill_together(source, needs)
    except Exception as error:
        if len(needs) == 1:
            return dict.fromkeys(needs, error)
        return {
            n: wrong for need, index in needs.items() for n, wrong in fill_source(cache, source, {need: index}).items()
        }
    return {}


def readable(built: Method) -> bool:
    """Whether a method can say what it reads; one that cannot fails in its cells."""
    try:
        built.all_needs(), built.all_needs(of_support=True), pool_reads(built)
        built.grid(), [c.grid() for c in built.children_methods()]
    except Exception:
        return False
    return True


def wanted(
    workspace: Workspace, todo: list[Cell], tests: Sequence[EvaluationSet]
) -> Iterator[tuple[Source, Need, Index]]:
    """Rows that the cells will read, by source and need, each once, in the order in which they are first wanted."""
    rows: dict[tuple[int, Need], tuple[Source, list[np.ndarray]]] = {}

    def want(images: Images | None, needs: list[Need]) -> None:
        if images is None or not isinstance(images.rows, CachedRows):
            return
        for need in needs:
            if need.stored and not need.fresh:
                source, own = part_read(images.rows.source, need)
                _, found = rows.setdefault((id(source), own), (source, []))
                found.append(images.index.numpy())

    tasks = {(c.shots, c.seed): None for c in todo}
    built = {name: m for name, spec in {c.label: c.spec for c in todo}.items() if readable(m := method(spec))}
    for where in tasks:
        task = workspace.task(*where)
        for m in [built[c.label] for c in todo if (c.shots, c.seed) == where and c.label in built]:
            want(task.support, m.all_needs(of_support=True))
            want(task.pool, pool_reads(m))
            want(task.gallery, [*m.gallery_needs().values()])
            want(task.val if m.grid() or any(c.grid() for c in m.children_methods()) else None, m.all_needs())
    for m in built.values():
        for tested in requested(tests, m.output):
            want(tested.images, m.all_needs())
    for (_, need), (source, found) in rows.items():
        index = np.concatenate(found)
        yield source, need, index[np.sort(np.unique(index, return_index=True)[1])]
