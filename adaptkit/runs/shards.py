"""Rows of features as work for others: whoever computes them hands them back, and one process stores them.

So the home needs locks on one machine only, and what workers see of it may be a copy that can only be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, overload

import numpy as np

from adaptkit.features.cache import CachedRows, FeatureCache
from adaptkit.features.items import Source
from adaptkit.features.needs import Need
from adaptkit.runs.evaluation_sets import EvaluationSet
from adaptkit.runs.loading import open_cache
from adaptkit.runs.opened import opened_bare
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.wanted import fill_source
from adaptkit.runs.workspace import Workspace

SHARD_ROWS = 64  # of a shard at least
MASK_BITS = 60  # needs that are told apart by the bits of a number


@dataclass(frozen=True)
class ShardJob:
    """Some images of a source of a recipe, and what to compute of each: a value, harmless to do twice."""

    recipe: Recipe
    source: str  # its place among those of the recipe, see `sources`
    needs: tuple[Need, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Rows of one stored table, as they are appended to it."""

    spec: Mapping[str, Any]
    ids: np.ndarray  # (N, 16)
    rows: np.ndarray  # (N, ...)
    seconds: float


@dataclass(frozen=True)
class Extracted:
    """What a shard came to.

    Attributes:
        blocks: rows by table.
        wrong: why a need could not be computed, by its number among the shard's.
    """

    blocks: list[Block] = field(default_factory=list)
    wrong: dict[int, str] = field(default_factory=dict)


class ShardJobs(Sequence[ShardJob]):
    """The shards of some readings, each made when it is asked for: of many images a list of them would be large.

    Attributes:
        groups: for each source and set of needs the images that lack rows of just these.
    """

    def __init__(self, recipe: Recipe, groups: Sequence[tuple[str, tuple[Need, ...], np.ndarray]]) -> None:
        self.recipe, self.groups = recipe, groups
        self.sizes = [max([SHARD_ROWS, *(need.batch for need in needs)]) for _, needs, _ in groups]
        counts = [-(-len(rows) // size) for (_, _, rows), size in zip(groups, self.sizes, strict=True)]
        self.ends = np.cumsum(counts, dtype=int)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @overload
    def __getitem__(self, number: int) -> ShardJob: ...
    @overload
    def __getitem__(self, number: slice) -> list[ShardJob]: ...
    def __getitem__(self, number: int | slice) -> ShardJob | list[ShardJob]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        group = int(np.searchsorted(self.ends, number, side="right"))
        source, needs, rows = self.groups[group]
        size, first = self.sizes[group], int(self.ends[group - 1]) if group else 0
        start = (number - first) * size
        return ShardJob(self.recipe, source, needs, tuple(rows[start : start + size].tolist()))


def sources(workspace: Workspace, tests: Sequence[EvaluationSet]) -> dict[str, Source]:
    """Every source that all processes with the same setting have, by its place there."""
    splits = workspace.splits
    found = {"train": splits.train, "val": splits.val, "test": splits.test, "pool": splits.pool}
    for i, tested in enumerate(tests):
        if isinstance(tested.images.rows, CachedRows):
            found[f"test set {i}"] = tested.images.rows.source
    return {place: source for place, source in found.items() if source is not None}


def lacking(cache: FeatureCache, source: Source, need: Need, index: Sequence[int]) -> np.ndarray:
    """Which images lack rows of a need, each once; of equal images the first."""
    rows = np.asarray(index, int)
    absent = np.zeros(len(rows), bool)
    for part in cache.parts(source, need, index):
        ids = part.ids.reshape(len(rows), -1, part.ids.shape[-1])  # (N, V, 16)
        _, first = np.unique(ids[:, 0], axis=0, return_index=True)
        once = np.isin(np.arange(len(rows)), first)
        absent |= once & part.missing().reshape(len(rows), -1).any(1)
    return rows[absent]


def planned(
    recipe: Recipe, workspace: Workspace, tests: Sequence[EvaluationSet], readings: Sequence[tuple[str, Need, Any]]
) -> ShardJobs:
    """The shards of what some readings lack; needs that the same images lack are computed by the same shard."""
    known = sources(workspace, tests)
    asked: dict[tuple[str, int], list[tuple[Need, np.ndarray]]] = {}
    for number, (place, need, index) in enumerate(readings):
        lacks = lacking(workspace.cache, known[place], need, index)
        asked.setdefault((place, number // MASK_BITS), []).append((need, lacks))
    groups = []
    for (place, _), some in asked.items():
        rows, masks = masked([lacks for _, lacks in some])
        for mask in dict.fromkeys(masks.tolist()):
            groups.append(
                (place, tuple(need for k, (need, _) in enumerate(some) if mask >> k & 1), rows[masks == mask])
            )
    return ShardJobs(recipe, groups)


def masked(lacks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Every image of some lists in the order they are met, ``(N,)``, and which lists have it: a bit for each."""
    bits = np.concatenate([np.full(len(rows), 1 << k) for k, rows in enumerate(lacks)])
    rows, first, where = np.unique(np.concatenate(lacks), return_index=True, return_inverse=True)
    masks = np.zeros(len(rows), np.int64)
    np.bitwise_or.at(masks, where, bits)
    order = np.argsort(first)
    return rows[order], masks[order]


def extract_some(
    shards: Sequence[ShardJob], home: Path, kept: Callable[[str], bool], seconds: float
) -> list[Extracted]:
    """Compute the rows of shards, those that continue one another together; all of them, however long it takes."""
    done: list[Extracted] = []
    while len(done) < len(shards):
        first = shards[len(done)]
        alike = [s for s in shards[len(done) :] if (s.source, s.needs) == (first.source, first.needs)]
        done.append(extract_rows(first, [i for s in alike for i in s.rows], home))
        done += [Extracted() for _ in alike[1:]]
    return done


def extract_rows(shard: ShardJob, rows: Sequence[int], home: Path) -> Extracted:
    """Compute rows of a shard's needs in an empty store, and hand them over."""
    workspace, tests = opened_bare(shard.recipe, home)
    known = sources(workspace, tests)
    found, wrong = dict[Path, Block](), dict[int, str]()
    with TemporaryDirectory(prefix="adaptkit-") as folder:
        cache = open_cache(workspace.backbone, workspace.setting, home=Path(folder))
        cache.towers = workspace.cache.towers  # those that are loaded already
        failed = fill_source(cache, known[shard.source], dict.fromkeys(shard.needs, rows))
        for number, need in enumerate(shard.needs):
            if error := failed.get(need):  # another may be well
                wrong[number] = f"{type(error).__name__}: {error}"
            for part in cache.parts(known[shard.source], need, rows):
                ids = np.unique(part.ids[~part.missing()], axis=0)
                if len(ids):
                    table = part.table
                    found[table.folder] = Block(table.spec, ids, table.read(ids), table.seconds)
    return Extracted([*found.values()], wrong)
