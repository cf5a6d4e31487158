"""Tables for programs: one JSON object for whatever a command shows. Its names are written down in docs/tables.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptkit.io.jsons import strict_json
from adaptkit.io.shots import plain_shots
from adaptkit.report import formats
from adaptkit.report.across import Across, numbers_across, sheet_across
from adaptkit.report.backbones import backbone_line
from adaptkit.report.comparison import Comparison
from adaptkit.report.edges import marked
from adaptkit.report.scores import Spread, score, unit_of
from adaptkit.report.sheets import Sheet
from adaptkit.report.table import Table, fewer

JSON_FORMAT = 1  # of the names below: one that is taken away or means something else makes it 2
COSTS_OF = ("extract", "fit", "predict")


def as_json(tables: Sequence[Mapping[str, Any]]) -> str:
    """Tables as text; numbers that are none (NaN, infinite) are null."""
    return strict_json({"format": JSON_FORMAT, "tables": list(tables)})


def comparison_json(comparison: Comparison) -> str:
    """A comparison of methods, as text."""
    numbers, metric = formats.numbers(comparison), comparison.metric
    return as_json([described_sheet("comparison", formats.sheet(comparison), metric, comparison.spread, numbers)])


def across_json(across: Across) -> str:
    """What differs side by side, as text."""
    return as_json([described_sheet("by", sheet_across(across), across.metric, across.spread, numbers_across(across))])


def described_sheet(
    kind: str, sheet: Sheet, metric: str, spread: Spread, numbers: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A table for programs: what a sheet says around its numbers, and the numbers unrounded."""
    return {
        **{"kind": kind, "name": sheet.title, "spread": spread, "about": [*sheet.about]},
        **{"units": {metric: unit_of(metric)}, "numbers": [*numbers]},
        "notes": [*(line for block in sheet.blocks for line in block.said), *sheet.notes],
    }


def run_json(name: str, table: Table, metrics: Sequence[str]) -> dict[str, Any]:
    """The table of a run, one entry for each method, number of shots and metric.

    Args:
        name: the recipe's.
        table: its results.
        metrics: that are shown.
    """
    backbones = dict.fromkeys(str(r.protocol["backbone"]) for r in table if r.protocol.get("backbone"))
    numbers = [
        number
        for dataset, part in table.by_dataset().items()
        for method in part.labels()
        for shots in part.shots()
        for metric in metrics
        if (number := entry_of(part, dataset, method, shots, metric))
    ]
    return {
        "kind": "run",
        "name": name,
        "spread": table.spread,
        "about": [*map(backbone_line, backbones)],
        "units": {metric: unit_of(metric) for metric in metrics},
        "numbers": numbers,
        "notes": [*fewer(table), *table.notes()],
    }


def entry_of(table: Table, dataset: str, method: str, shots: int, metric: str) -> dict[str, Any]:
    """One number of a run with all that belongs to it; nothing where there is neither a result nor a failure."""
    rows = table.groups().get(method, {}).get(shots, [])
    failed = sum((f.method, f.shots) == (method, shots) for f in table.failures)
    found = score([rows], metric)
    if not found and not failed:
        return {}
    costs = {name: sum(r.seconds.get(name, 0.0) for r in rows) / len(rows) if rows else None for name in COSTS_OF}
    return {
        **{"dataset": dataset, "method": method, "shots": plain_shots(shots), "metric": metric},
        **{"oracle": any(r.oracle for r in rows), "edge": bool(marked(rows)), "failed": failed},
        **{"mean": found.mean if found else None, "std": found.std if found else None},
        **dict(zip(("low", "high"), found.ends if found else (None, None), strict=True)),
        "seeds": len(rows),
        "trained": max((r.parameters for r in rows), default=None),
        **{f"{name}_seconds": seconds for name, seconds in costs.items()},
    }
