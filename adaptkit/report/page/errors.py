"""What a page of a comparison says about errors: for each method and number of shots, where predictions were kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np

from adaptkit.io.notices import notice
from adaptkit.report.comparison import AVERAGE, Column, Comparison
from adaptkit.report.errors.agreement import agreement
from adaptkit.report.errors.behind import of_result
from adaptkit.report.errors.keepers import InFolders
from adaptkit.report.errors.mistakes import mistakes_section
from adaptkit.report.errors.predictions import Predictions
from adaptkit.report.errors.sections import (
    agreement_section,
    classes_section,
    confusion_section,
    reliability_section,
    section,
)
from adaptkit.report.scores import falling, short_names
from adaptkit.runs.results import Result

MOST_CHARACTERS = 4_000_000  # characters of all sections; those at fewer shots are left out first
ERRORS = 12  # of each method, by name


def errors_templates(comparison: Comparison, thumbnails: int = 0, home: Path | None = None) -> str:
    """Sections that a script shows as they are chosen: each in a ``<template>`` that names dataset, method and shots.

    Args:
        comparison: whose runs kept predictions; nothing is said of cells without.
        thumbnails: so many errors of each dataset's best method have pictures.
        home: where features are kept, which tell the neighbours of these.
    """
    keeper, out, size = InFolders([run.folder for run in comparison.runs], home), list[str](), 0
    columns = [column for column in comparison.columns if column.dataset != AVERAGE]
    opened = set[str]()
    for column in sorted(columns, key=lambda column: -column.shots):  # the page opens at the most
        pictures = 0 if column.dataset in opened else thumbnails
        opened.add(column.dataset)
        for part in column_templates(comparison, column, keeper, opening_method(comparison, column), pictures):
            size += len(part)
            if size > MOST_CHARACTERS:
                return "".join(out)
            out.append(part)
    return "".join(out)


def column_templates(
    comparison: Comparison, column: Column, keeper: InFolders, best: str, thumbnails: int
) -> Iterator[str]:
    """The sections of one dataset and number of shots: the best method's first, then the others', then agreement."""
    told, seeds = dict[str, Predictions](), dict[str, int]()
    for method in sorted(comparison.methods, key=lambda method: method != best):
        results = [result for group in comparison.rows(column, method) for result in group]
        found, damaged = kept_answers(keeper, results)
        body, over = damaged_section(damaged), ""
        if found:
            seeds[method], told[method] = found[0]
            body = pooled_sections([each for _, each in found], thumbnails if method == best else 0) + body
            over = f"seed {found[0][0]}" if found[0][1].kind in ("maps", "ranking") else over
        if body:
            yield errors_template(column, method, body, over)
    named = {m: p for m, p in told.items() if countable(p) and list(p.images) == list(told[next(iter(told))].images)}
    if len(named) > 1:
        order = [method for method in comparison.methods if method in named]
        short = short_names(order)
        title = ", ".join(dict.fromkeys(f"seed {seeds[method]}" for method in order))
        agreed = agreement({method: named[method].predicted for method in order}, named[order[0]].labels, title)
        yield errors_template(column, "", agreement_section(agreed, [short[method] for method in order]))


def kept_answers(keeper: InFolders, results: Sequence[Result]) -> tuple[list[tuple[int, Predictions]], list[int]]:
    """Seeds with what was answered about the task's own images, where it was kept; and seeds where it is damaged."""
    found, damaged = list[tuple[int, Predictions]](), list[int]()
    for result in results:
        try:
            if keeper.file(result) is not None:
                found.append((result.seed, of_result(keeper, result)))
        except (ValueError, OSError) as error:
            notice(f"{error}; the page says nothing of these errors")
            damaged.append(result.seed)
    return found, damaged


def damaged_section(damaged: Sequence[int]) -> str:
    """Which seeds are left out as their predictions are damaged."""
    if not damaged:
        return ""
    seeds = ", ".join(map(str, damaged))
    return section("Left out", f"predictions that cannot be read: of seed{'s' * (len(damaged) > 1)} {seeds}")


def countable(told: Predictions) -> bool:
    """Whether each image has one class and is answered by one, with a probability."""
    return "confidence" in told.columns and told.about_classes


def pooled_sections(found: Sequence[Predictions], thumbnails: int) -> str:
    """The sections about one method: counts over all seeds, and the surest errors of the first."""
    parts, one = [], found[0]
    if own := one.own_sections(thumbnails or ERRORS, thumbnails > 0):
        return own
    if one.about_classes and "confidence" in one.columns:
        same = [told for told in found if list(told.names) == list(one.names)]
        labels = np.concatenate([told.labels for told in same])
        predicted = np.concatenate([told.predicted for told in same])
        known = labels >= 0
        sure = np.concatenate([told.confidence for told in same])[known]
        parts.append(confusion_section(labels, predicted, one.names))
        parts.append(reliability_section(sure, (labels == predicted)[known]))
        parts.append(classes_section(labels, predicted, one.names))
    if "predicted" in one.columns:
        note = one.gallery.note() if thumbnails and one.gallery else ""
        seed = f"of {one.title}" * (len(found) > 1)
        said = "; ".join(filter(None, (seed, note)))
        parts.append(mistakes_section(one.mistakes(thumbnails or ERRORS, thumbnails > 0), said))
    return "".join(parts)


def errors_template(column: Column, method: str, body: str, over: str = "") -> str:
    """Sections that are not shown until a script asks for them; `over` says what they are of, if not of all seeds."""
    where = f'data-dataset="{escape(column.dataset)}" data-method="{escape(method)}" data-shots="{column.shots}"'
    told = f' data-over="{escape(over)}"' if over else ""
    return f"<template {where}{told}>{body}</template>"


def opening_method(comparison: Comparison, column: Column) -> str:
    """The method with the best mean of a column, with which a page opens."""
    cells = comparison.columns[column]
    choose = min if falling(comparison.metric) else max
    return choose(cells, key=lambda method: cells[method].score.mean)
