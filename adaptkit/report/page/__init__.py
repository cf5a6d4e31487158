"""A comparison as one HTML file that needs nothing else: no network, no library, no server."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from math import isfinite
from pathlib import Path
from statistics import mean
from typing import Any

from adaptkit.io.values import Spec
from adaptkit.report import formats
from adaptkit.report.comparison import Column, Comparison, quoted
from adaptkit.report.errors.sections import style
from adaptkit.report.page.errors import errors_templates
from adaptkit.report.page.sequence import sequence_templates
from adaptkit.report.recall import recall_curves
from adaptkit.report.scores import falling, option_notes, over_seeds, percent, short_names, unit_of
from adaptkit.runs.results import Result

FILES = ("page.html", "page.css", "page.js", "charts.js")
COSTS = ("extract", "fit", "predict")


def page(comparison: Comparison, thumbnails: int = 0, home: Path | None = None) -> str:
    """The page, opened on the comparison's metric; it holds every other metric too.

    Args:
        comparison: that is shown.
        thumbnails: so many errors have pictures; see `errors_templates`.
        home: where features are kept.
    """
    files = {name: (Path(__file__).parent / name).read_text(encoding="utf-8") for name in FILES}
    parts = {
        "title": escape(formats.titled(comparison)),
        "style": files["page.css"] + style(),
        "errors": sequence_templates(comparison) + errors_templates(comparison, thumbnails, home),
        "data": embedded(content(comparison)),
        "script": files["page.js"] + files["charts.js"],
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda hole: parts[hole[1]], files["page.html"])


def embedded(data: object) -> str:
    """JSON that cannot end the script element that it stands in, whatever its texts are."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def content(comparison: Comparison) -> dict[str, Any]:
    """Everything that the page shows."""
    each = [Comparison(comparison.runs, name, comparison.against, comparison.spread) for name in comparison.metrics]
    short, columns = short_names(comparison.methods), list(dict.fromkeys(c for one in each for c in one.columns))
    return {
        "metric": comparison.metric,
        "spread": over_seeds(comparison.spread),
        "against": comparison.against,
        "metrics": {one.metric: metric(one) for one in each},
        "datasets": {c.dataset: formats.labelled(comparison, c.dataset) for c in columns},
        "methods": [{"label": m, "name": short[m]} for m in comparison.methods],
        "protocol": protocol_facts(comparison),
        "costs": [costs(comparison, column, m) for column in columns for m in comparison.methods],
        "recall": {name: recall(table.groups()) for name, table in comparison.tables.items()},
        "classes": {name: classes(table.groups()) for name, table in comparison.tables.items()},
    }


def metric(comparison: Comparison) -> dict[str, Any]:
    """One metric's numbers."""
    quotes, name, first = formats.footnotes(comparison), comparison.metric, formats.first_source(comparison)
    numbered = [note for note in option_notes(comparison.methods) if note.startswith("[")]  # rows have the others
    return {
        "unit": unit_of(name),
        "percent": percent(name),
        "falling": falling(name),
        "legend": [*formats.legend(comparison), *numbered],
        "differences": formats.explained(comparison),
        "first_source": first,
        "sources": quotes,
        "cells": [
            {
                "dataset": column.dataset,
                "shots": column.shots,
                "method": method,
                "mean": round(cell.score.mean, 6),
                "half": half if (half := cell.score.around(comparison.spread)) is None or isfinite(half) else None,
                "mark": formats.mark(comparison, column, method).strip(),
                "oracle": cell.oracle,
                "difference": formats.difference(comparison, column, method) if cell.verdict else "",
                "reference": cell.verdict.reference if cell.verdict else "",
                "published": quoted(cell.published) if cell.published else None,
                "source": formats.first_source(comparison) + quotes.index(cell.published.source)
                if cell.published
                else None,
            }
            for column, cells in comparison.columns.items()
            for method, cell in cells.items()
            if isfinite(cell.score.mean)
        ],
    }


def protocol_facts(comparison: Comparison) -> list[str]:
    """What all numbers have in common, in words."""
    results = [result for table in comparison.tables.values() for result in table]
    seeds, fixed = len({result.seed for result in results}), results[0].protocol
    said = [f"{name} {page_text(fixed[name])}" for name in ("support", "select", "classes") if fixed.get(name)]
    several = [", ".join(comparison.tables)] if len(comparison.tables) > 1 else []
    return [*several, *formats.of_backbones(comparison), *said, f"{seeds} seed{'s' * (seeds != 1)}"]


def page_text(value: object) -> str:
    """A part of a protocol, as its recipe has it."""
    return ", ".join(Spec.of({k: v}).label for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def costs(comparison: Comparison, column: Column, method: str) -> dict[str, Any]:
    """What a method's cells cost on average, in seconds and in numbers trained."""
    results = [result for group in comparison.rows(column, method) for result in group]
    seconds = {name: round(mean(r.seconds.get(name, 0.0) for r in results), 4) if results else None for name in COSTS}
    trained = mean(r.parameters for r in results) if results else None
    return {"dataset": column.dataset, "shots": column.shots, "method": method, **seconds, "trained": trained}


def recall(groups: Mapping[str, Mapping[int, Sequence[Result]]]) -> dict[str, dict[int, list[list[float | None]]]]:
    """By method and shots, for K from 1: recall among the first K items, and half of its interval over seeds."""
    return {
        method: {
            k: [[round(p.mean, 4), None if p.half is None else round(p.half, 4)] for p in curve.values()]
            for k, curve in by_shots.items()
        }
        for method, by_shots in recall_curves(groups).items()
    }


def classes(groups: Mapping[str, Mapping[int, Sequence[Result]]]) -> dict[str, Any]:
    """By test set: the names of its classes and, by method and shots, each one's share of right answers over seeds."""
    out: dict[str, Any] = {}
    for result in [r for by_shots in groups.values() for rows in by_shots.values() for r in rows]:
        for test, pairs in result.classes.items():
            found = out.setdefault(test, {"names": [name for name, _ in pairs], "shares": {}})
            found["shares"].setdefault(result.method, {}).setdefault(result.shots, []).append([s for _, s in pairs])
    for found in out.values():
        for by_shots in found["shares"].values():
            for k, seeds in by_shots.items():
                by_shots[k] = [
                    None if None in shares else round(mean(shares), 4) for shares in zip(*seeds, strict=True)
                ]
    return out
