"""What a recipe would compute, without computing it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from adaptkit.features.cache import FeatureCache, Part
from adaptkit.features.items import Source
from adaptkit.features.needs import Need
from adaptkit.features.parts import Index, prepared
from adaptkit.io.text import columns
from adaptkit.methods.unlabelled import pool_reads
from adaptkit.runs.build import check_outside, method
from adaptkit.runs.protocol import Codes, cells, file_name, participants, protocol
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.wanted import wanted
from adaptkit.runs.workspace import Workspace


@dataclass(frozen=True)
class Line:
    """One stored table as a recipe wants it: rows wanted and present, and what the missing ones will cost."""

    what: str
    wanted: int
    present: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What a run would compute.

    Attributes:
        recipe: its name.
        cells: that it has.
        done: of them.
        device: that it would run on.
        notes: what was left out of it, in lines.
        rows: each stored table that it reads.
        store: the folder of the features.
        weights: bytes of the towers.
        trained: methods that are trained by Lightning.
        live: methods with towers in the loop, which are slow.
    """

    recipe: str
    cells: int
    done: int
    device: str
    notes: Sequence[str]
    rows: Sequence[Line]
    store: Path
    weights: int
    trained: Sequence[str]
    live: Sequence[str]

    def facts(self) -> dict[str, object]:
        """What JSON says of it; seconds are those of what is missing, bytes those of all rows."""
        new = sum(r.bytes * (r.wanted - r.present) / max(1, r.wanted) for r in self.rows)
        found = {**asdict(self), "seconds": sum(r.seconds for r in self.rows), "bytes_to_write": int(new)}
        return found | {"held": sum(r.bytes for r in self.rows)}

    def __str__(self) -> str:
        held, seconds = sum(r.bytes for r in self.rows), sum(r.seconds for r in self.rows)
        new = sum(r.bytes * (r.wanted - r.present) / max(1, r.wanted) for r in self.rows)
        todo = self.cells - self.done
        return "\n".join(
            [
                f"{self.recipe}: {self.cells} cells, {self.done} done, {todo} to run on {self.device}",
                *self.notes,
                in_columns(self.rows),
                f"extraction: {seconds:.0f} s; disk: {new / 1e6:.1f} MB to write in {self.store}",
                f"memory: {self.weights / 1e6:.0f} MB of weights, {held / 1e6:.1f} MB of features, memory-mapped",
                f"trained by Lightning: {', '.join(self.trained) or 'none'}",
                f"towers in the loop (slow): {', '.join(self.live) or 'none'}",
            ]
        )


def plan_of(recipe: Recipe, *, home: Path, out: Path) -> Plan:
    """What is cached, what would be computed, how long it takes and how much it needs.

    Times come from the rows already in a table, or from a probe of a few rows that are not kept.
    """
    check_outside(recipe)
    workspace = Workspace(recipe.setting(), home=home)
    tests = workspace.evaluation_sets()
    fixed, shared, every = protocol(recipe, workspace, tests), participants(workspace), cells(recipe)
    codes: Codes = {}
    todo = [cell for cell in every if not (out / f"{file_name(cell, fixed, shared, codes)}.json").exists()]
    rows = tables(workspace, wanted(workspace, todo, tests))
    weights = sum(p.numel() * p.element_size() for p in workspace.backbone.model.parameters())
    built = {name: method(spec) for name, spec in recipe.labels().items()}
    trained = [name for name, m in built.items() if hasattr(m, "schedule")]
    read = {name: [*m.all_needs(of_support=True), *pool_reads(m), *m.all_needs()] for name, m in built.items()}
    live = [name for name, needs in read.items() if any(not need.stored or need.fresh for need in needs)]
    return Plan(
        recipe=recipe.name,
        cells=len(every),
        done=len(every) - len(todo),
        device=str(workspace.device),
        notes=[*recipe.said(), *workspace.others.lines()],
        rows=rows,
        store=workspace.cache.store.root,
        weights=weights,
        trained=trained,
        live=live,
    )


def tables(workspace: Workspace, readings: Iterable[tuple[Source, Need, Index]]) -> list[Line]:
    """Each stored table that some readings want rows of, once."""
    lines: dict[Path, list[Line]] = {}
    for source, need, index in readings:
        for part in workspace.cache.parts(source, need, index):
            lines.setdefault(part.table.folder / source.name, []).append(table_cost(workspace.cache, source, part))
    return [max(group, key=lambda line: line.wanted) for group in lines.values()]  # readings of one table overlap


def in_columns(rows: Sequence[Line]) -> str:
    """Some tables in columns."""
    head = ["features", "rows wanted", "present", "to compute", "seconds", "MB"]
    body = [
        [
            r.what,
            f"{r.wanted:,}",
            f"{r.present:,}",
            f"{r.wanted - r.present:,}",
            f"{r.seconds:.0f}",
            f"{r.bytes / 1e6:.1f}",
        ]
        for r in rows
    ]
    return columns([head, *body]) if body else "features: nothing is wanted"


def table_cost(cache: FeatureCache, source: Source, part: Part) -> Line:
    """What one reading of a table wants. An empty table will have rows as wide as the need says."""
    ids, table = np.unique(part.ids, axis=0), part.table
    missing = int(table.missing(ids).sum())
    rate = table.seconds / table.rows if table.rows else time_rows(cache, source, part) if missing else 0.0
    backbone = cache.tower(part.need.backbone)
    width = table.bytes / table.rows if table.rows else part.need.bytes(backbone, cache.dtype)
    name = f"{source.name} · {type(part.need).__name__}{' views' if part.random else ''}"
    return Line(name, len(ids), len(ids) - missing, missing * rate, int(len(ids) * width))


def time_rows(cache: FeatureCache, source: Source, part: Part, rows: int = 8) -> float:
    """Seconds per row, measured on a few that are thrown away."""
    backbone = cache.tower(part.need.backbone)
    began = time.perf_counter()
    ready = [prepared(source, part.need, backbone, *item)[1] for item in part.items[:rows]]
    cache.compute(part.need, backbone, ready)
    return (time.perf_counter() - began) / len(ready)
