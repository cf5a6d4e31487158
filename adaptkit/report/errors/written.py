"""Answers as text, CSV and plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from adaptkit.io.safe import csv_text, line
from adaptkit.io.text import columns
from adaptkit.report.errors.agreement import Agreement
from adaptkit.report.errors.counts import most_confused
from adaptkit.report.errors.maps import by_worth, map_tables, plain_maps
from adaptkit.report.errors.mistakes import said
from adaptkit.report.errors.predictions import Predictions
from adaptkit.report.errors.ranks import COLUMNS_OF_QUERIES, late_rows
from adaptkit.report.errors.sections import percentage
from adaptkit.report.scores import option_notes

TERMINAL_ROWS = 10  # rows of a table for a terminal


def answers_csv(told: Predictions, every: bool = False) -> str:
    """A line for each image that was answered wrong, the surest errors first; or for every image, in order.

    Of maps a line for every image, those that are told worst first.
    """
    if told.kind == "maps" and not every:
        rows = told.rows(by_worth(told))
    else:
        rows = told.rows(None if every or "predicted" not in told.columns else told.errors())
    names = list(rows[0]) if rows else ["image", "label", "predicted", "probability", "right", "others"]
    body = [[flat(row[name]) for name in names] for row in rows]
    return csv_text([names, *body])


def flat(value: Any) -> Any:  # noqa: ANN401 (what a row holds)
    """A value as one cell: several names are parted by bars."""
    return "|".join(map(str, value)) if isinstance(value, list) else value


def confusion_csv(told: Predictions) -> str:
    """The confusion matrix with names: true classes in rows, answers in columns."""
    names = list(told.names)
    rows = zip(names, told.counts.tolist(), strict=True)
    return csv_text([["true \\ answered", *names], *([name, *counts] for name, counts in rows)])


def plain_answers(told: Predictions, most: int) -> dict[str, Any]:
    """Everything that a program may want to know, as plain values; shares are between 0 and 1."""
    found: dict[str, Any] = {"about": told.title, "kind": told.kind, "images": len(told)}
    if told.kind == "maps":
        return found | plain_maps(told, most)
    if "predicted" in told.columns:
        found |= {"wrong": len(told.errors())}
    if told.about_classes:
        found |= {"macro_f1": told.macro_f1, "classes": [asdict(scores) for scores in told.per_class()]}
        found["confused"] = [asdict(pair) for pair in most_confused(told.counts, told.names)]
    if "predicted" not in told.columns:  # a score by itself is neither right nor wrong
        return found | {"scores": told.rows(range(min(most, len(told))))}
    return found | {"errors": told.rows(told.errors(most))}


def answers_text(told: Predictions, most: int) -> str:
    """The pairs that are confused most, the classes with the lowest F1, and the surest errors, for a terminal."""
    if told.kind == "maps":
        count = int(told.columns["anomalous"].sum()) if "anomalous" in told.columns else 0
        tables = [columns(table) for table in map_tables(told, most)]
        return "\n\n".join([f"{told.title}: maps of {len(told):,} images, {count:,} anomalous", *tables])
    if "predicted" not in told.columns:
        return f"{told.title}: scores of {len(told):,} images; --out scores.csv has them"
    wrong = len(told.errors())
    if told.kind == "ranking":
        rows = late_rows(told.rows(told.errors(most)))
        about = f"{told.title}: {len(told):,} queries, {wrong:,} whose item is not found first"
        return "\n\n".join([about, *([columns([[*COLUMNS_OF_QUERIES], *rows])] if rows else [])])
    parts = [f"{told.title}: {len(told):,} images, {wrong:,} answered wrong"]
    if told.about_classes:
        parts[0] += f", macro-F1 {percentage(told.macro_f1)} %"
        pairs = [
            [p.label, p.predicted, str(p.count), percentage(p.share)] for p in most_confused(told.counts, told.names)
        ]
        if pairs:
            parts.append(columns([["true", "answered", "images", "% of class"], *pairs[:TERMINAL_ROWS]]))
        found = sorted((s for s in told.per_class() if s.f1 is not None), key=lambda s: s.f1 or 0.0)
        rows = [[s.name, str(s.count), *map(percentage, (s.precision, s.recall, s.f1))] for s in found[:TERMINAL_ROWS]]
        parts.append(columns([["class, lowest F1 first", "images", "precision", "recall", "F1"], *rows]))
    errors = told.rows(told.errors(most))
    if errors:
        rows = [
            [str(r["image"]), said(r["label"]), said(r["predicted"]), percentage(r.get("probability"))] for r in errors
        ]
        parts.append(columns([["surest errors", "true", "answered", "probability, %"], *rows]))
    return "\n\n".join(parts)


def agreement_text(found: Agreement, names: Sequence[str]) -> str:
    """Cohen's kappa of all pairs of methods, for a terminal."""
    rows = [[line(name), *(f"{value:.2f}" for value in row)] for name, row in zip(names, found.kappa, strict=True)]
    table = columns([["kappa", *map(line, names)], *rows])
    notes = "".join(f"\n{line(note)}" for note in option_notes(list(found.methods)))
    about = f"{line(found.title)}\n\n" * bool(found.title)
    return f"{about}{table}\n{notes}\nimages that all methods answer wrong: {len(found.hard):,}"


def plain_agreement(found: Agreement) -> dict[str, Any]:
    """The agreement of methods as plain values, in matrices whose rows and columns are the methods."""
    names = ("kappa", "both_right", "one_right", "both_wrong")
    matrices = {name: getattr(found, name).tolist() for name in names}
    return {"about": found.title, "methods": list(found.methods), **matrices, "all_wrong": found.hard.tolist()}
