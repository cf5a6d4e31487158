"""What a recipe would compute, without computing it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from adaptkit.bench import Bench
from adaptkit.cache import FeatureCache, Part
from adaptkit.images import Source, pixels
from adaptkit.needs import Pixels
from adaptkit.options import method
from adaptkit.recipe import Recipe
from adaptkit.report.table import columns
from adaptkit.runner import cells, file_name, protocol, wanted


@dataclass(frozen=True)
class Line:
    """One stored table as a recipe wants it: rows wanted and present, and what the missing ones will cost."""

    what: str
    wanted: int
    present: int
    seconds: float
    bytes: int


def plan(recipe: Recipe, *, home: Path, out: Path) -> str:
    """What is cached, what would be computed, how long it takes and how much it needs, as text.

    Times come from the rows already in a table, or from a probe of a few rows that are not kept.
    """
    bench = Bench(recipe.setting(), home=home)
    exams = bench.exams()
    fixed = protocol(recipe, bench, exams)
    every = cells(recipe)
    todo = [cell for cell in every if not (out / f"{file_name(cell, fixed)}.json").exists()]
    lines: dict[Path, list[Line]] = {}
    for source, need, index in wanted(bench, todo, exams):
        for part in bench.cache.parts(source, need, index):
            lines.setdefault(part.table.folder / source.name, []).append(cost(bench.cache, source, part))
    rows = [max(group, key=lambda line: line.wanted) for group in lines.values()]  # readings of one table overlap
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
    models = sum(p.numel() * p.element_size() for p in bench.backbone.model.parameters())
    held, seconds = sum(r.bytes for r in rows), sum(r.seconds for r in rows)
    new = sum(r.bytes * (r.wanted - r.present) / max(1, r.wanted) for r in rows)
    built = {name: method(spec) for name, spec in recipe.labels().items()}
    trained = [name for name, m in built.items() if hasattr(m, "schedule")]
    live = [
        name for name, m in built.items() if any(isinstance(n, Pixels) or n.fresh for n in m.all_needs(of_support=True))
    ]
    return "\n".join(
        [
            f"{recipe.name}: {len(every)} cells, {len(every) - len(todo)} done, {len(todo)} to run on {bench.device}",
            columns([head, *body]) if body else "features: nothing is wanted",
            f"extraction: {seconds:.0f} s; disk: {new / 1e6:.1f} MB to write in {bench.cache.store.root}",
            f"memory: {models / 1e6:.0f} MB of weights, {held / 1e6:.1f} MB of features, memory-mapped",
            f"trained by Lightning: {', '.join(trained) or 'none'}",
            f"towers in the loop (slow): {', '.join(live) or 'none'}",
        ]
    )


def cost(cache: FeatureCache, source: Source, part: Part) -> Line:
    """What one reading of a table wants."""
    ids = np.unique(part.ids, axis=0)
    missing = int(part.table.missing(ids).sum())
    rate = part.table.seconds / part.table.rows if part.table.rows else probe(cache, source, part) if missing else 0.0
    per_value = {"float16": 2, "float32": 4}[cache.dtype]
    table, narrow = part.table, cache.tower(part.need.backbone).dim * per_value
    width = table.bytes / table.rows if table.rows else narrow  # of an empty table, as if it held pooled embeddings
    name = f"{source.name} · {type(part.need).__name__}{' views' if part.random else ''}"
    return Line(name, len(ids), len(ids) - missing, missing * rate, int(len(ids) * width))


def probe(cache: FeatureCache, source: Source, part: Part, rows: int = 8) -> float:
    """Seconds per row, measured on a few that are thrown away."""
    backbone = cache.tower(part.need.backbone)
    began = time.perf_counter()
    batch = torch.stack([pixels(source, backbone, part.need.augment, *item) for item in part.items[:rows]])
    cache.compute(part.need, backbone, batch)
    return (time.perf_counter() - began) / len(batch)
