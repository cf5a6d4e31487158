"""Recall curves of rankings: the share of queries whose item is among the first K, for each K."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adaptkit.io.files import atomic_write
from adaptkit.report.backbones import backbone_line
from adaptkit.report.errors.ranks import ranks_of
from adaptkit.report.figure_data import Drawing
from adaptkit.report.plot import Curves, as_picture, drawing, figure
from adaptkit.report.scores import Score, heading
from adaptkit.runs.results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEEPEST, LEAST = 50, 10  # items from the first on; fewer where every query finds its item before
MARKED = (1, 5, 10, 20, 30, 40, 50)  # those that an axis names
PICTURE = "recall.svg"  # beside a run's records


def is_ranking(result: Result) -> bool:
    """Whether a result is that of a search."""
    return result.protocol.get("kind") == "ranking" and bool(result.right.get(""))


def depth_of(results: Sequence[Result]) -> int:
    """How far curves go: no further than there is something to be found."""
    worst = [int(ranks_of(r.right[""]).max()) for r in results if is_ranking(r)]
    return min(DEEPEST, max([LEAST, *worst]))


def recall_curve(results: Sequence[Result], depth: int) -> dict[int, Score]:
    """By K, from 1 to a depth, recall among the first K items: the mean over seeds, and each seed's."""
    shares = np.stack([[np.mean(ranks_of(r.right[""]) <= k) for k in range(1, depth + 1)] for r in results])
    return {k + 1: Score(float(np.mean(own)), tuple(own.tolist())) for k, own in enumerate(shares.T)}


def recall_curves(groups: Mapping[str, Mapping[int, Sequence[Result]]]) -> dict[str, dict[int, dict[int, Score]]]:
    """By method and shots, its curve; nothing of what is no ranking."""
    depth = depth_of([r for by_shots in groups.values() for rows in by_shots.values() for r in rows])
    found = {
        method: {k: recall_curve(rows, depth) for k, rows in by_shots.items() if rows and all(map(is_ranking, rows))}
        for method, by_shots in groups.items()
    }
    return {method: by_shots for method, by_shots in found.items() if by_shots}


def of_ranking(table: Curves, title: str = "") -> Drawing:
    """The picture of the recall curves of a run's table."""
    groups = table.groups()
    results = [r for by_shots in groups.values() for rows in by_shots.values() for r in rows]
    backbones = dict.fromkeys(str(r.protocol["backbone"]) for r in results if r.protocol.get("backbone"))
    most = f"of several numbers of shots the most, {heading(max(table.shots()))}" if len(table.shots()) > 1 else ""
    above = [*map(backbone_line, backbones), *filter(None, [most])]
    curves = {method: by_shots[max(by_shots)] for method, by_shots in recall_curves(groups).items()}
    ticks = {k: str(k) for k in MARKED if any(k in curve for curve in curves.values())}
    made = drawing("recall@K", title, curves, ticks, above, table.spread)
    return replace(made, across="K, items from the first on")


def recall_figure(table: Curves, title: str = "") -> Figure:
    """The recall curves of a run's table, to look at.

    Raises:
        ValueError: where nothing was searched.
        ImportError: without matplotlib.
    """
    shown = of_ranking(table, title)
    if not shown.curves:
        raise ValueError("recall must be of results of a search; got none; plot() draws any metric")
    return figure(shown)


def draw_recall(table: Curves, folder: Path, title: str) -> Path | None:
    """Write the recall curves of a run beside its records; nothing where it is no search.

    Raises:
        ImportError: without matplotlib.
    """
    shown = of_ranking(table, title)
    if not shown.curves:
        return None
    atomic_write(folder / PICTURE, as_picture(shown, "svg"))
    return folder / PICTURE
