"""Extraction by an engine: the rows that workers hand back are stored by this process alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from adaptkit.features.cache import FeatureCache
from adaptkit.features.needs import Need
from adaptkit.runs.engine import Engine, WorkerDiedError, check_same
from adaptkit.runs.evaluation_sets import EvaluationSet
from adaptkit.runs.protocol import Cell
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.shards import Block, Extracted, ShardJobs, extract_some, planned, sources
from adaptkit.runs.wanted import wanted
from adaptkit.runs.workspace import Workspace


def fill_by(
    engine: Engine,
    recipe: Recipe,
    workspace: Workspace,
    todo: list[Cell],
    tests: Sequence[EvaluationSet],
    show: Callable[[int, int], None],
) -> str:
    """Have an engine compute what some cells will read, store it here, and say in a line what that was.

    Sentences are encoded here, and images that only one cell's support has; see `read_sentences`.

    Args:
        engine: that does shards.
        recipe: whose cells they are.
        workspace: of its setting.
        todo: the cells.
        tests: every test set.
        show: told how many shards are done, and of how many.

    Raises:
        ValueError: when nothing can be computed from some images.
    """
    cache, places = workspace.cache, {id(source): place for place, source in sources(workspace, tests).items()}
    readings: list[tuple[str, Need, Any]] = []
    for source, need, index in wanted(workspace, todo, tests):
        if id(source) in places:
            readings.append((places[id(source)], need, index))
        else:
            cache.fill(source, need, index)
    shards = planned(recipe, workspace, tests, readings)
    count, took = hand_out(engine, shards, cache, show)
    if todo:
        read_sentences(workspace, tests)
    count, took = count + sum(cache.computed.values()), took + cache.seconds
    return f"features: {count:,} rows computed in {took:.1f} s of all workers, the rest found in {cache.store.root}"


def hand_out(
    engine: Engine, shards: ShardJobs, cache: FeatureCache, show: Callable[[int, int], None]
) -> tuple[int, float]:
    """Have an engine do shards, and store what comes of them; rows, and seconds of workers.

    What one need cannot be computed for is left to the cells that read it.

    Raises:
        ValueError: when nothing can be computed from some images.
    """
    good, bad, count, took = set[str](), dict[str, str](), 0, 0.0
    for number, (i, made) in enumerate(engine.each(extract_some, shards, cache.store.root.parent), 1):
        place = shards[i].source
        for block in made.blocks if isinstance(made, Extracted) else ():
            keep_rows(cache, block)
            count, took = count + len(block.ids), took + block.seconds
            good.add(place)
        for why in [str(made)] if isinstance(made, WorkerDiedError) else made.wrong.values():
            bad.setdefault(place, why)
        show(number, len(shards))
    for place, first in bad.items():
        if place not in good:
            raise ValueError(f"{shards.recipe.name}: features of {place} must be computed by a worker; got {first}")
    return count, took


def keep_rows(cache: FeatureCache, block: Block) -> None:
    """Store rows that a worker computed, if its table is one of those that this process reads.

    Raises:
        ValueError: when it is not: there is something else on the worker's machine.
    """
    table = cache.store.table(block.spec)
    if table not in cache.tables.values():
        own = [t.spec for t in cache.tables.values() if t.spec.get("need") == block.spec.get("need")]
        key = next((k for spec in own for k in spec if spec[k] != block.spec.get(k)), "need")
        check_same(f"{key} {block.spec.get(key)}", f"{own[0].get(key) if own else 'none'}", "rows of features")
    with table.writing():
        table.append(block.ids, block.rows, block.seconds)


def read_sentences(workspace: Workspace, tests: Sequence[EvaluationSet]) -> None:
    """Encode the classes' sentences in the order in which cells in turn ask for them.

    The last digits of a sentence's row depend on the longest beside it: several processes would part them otherwise.
    What cannot be encoded is left to the cells, which fail by it.
    """
    learned = [workspace.learned] if len(workspace.groups) == 1 else workspace.groups
    prompts = [workspace.sentences[: classes.stop] for classes in learned]
    prompts += [tested.task.prompts for tested in tests if tested.task]
    for some in prompts:
        with suppress(Exception):
            workspace.cache.sentences([s for own in some for s in own])
