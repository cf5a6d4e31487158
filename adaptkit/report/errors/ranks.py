"""Where a search found what was asked for: the ranks that a record has, and the queries whose item came late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adaptkit.report.errors.sections import data_table, section

COLUMNS_OF_QUERIES = ("query", "item", "found first", "rank")
LETTERS = 60  # letters of a query or an item


def ranks_of(worth: str | Sequence[float]) -> np.ndarray:
    """Each query's rank, ``(N,)`` from 1, of the reciprocal ranks that a record has.

    >>> from adaptkit.report.errors.ranks import ranks_of
    >>> ranks_of([1.0, 0.5, 1 / 3]).tolist()
    [1, 2, 3]
    """
    return np.rint(1 / np.asarray(worth, float)).astype(int)


def late_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Queries with their own items, the item that was found first, and the rank of the first of their own, as text."""
    cells = [[row["image"], row["label"], row["predicted"], row.get("rank", "-")] for row in rows]
    return [[in_letters(value) for value in line] for line in cells]


def late_section(rows: Sequence[Mapping[str, Any]]) -> str:
    """The queries whose item came late, as a section of a page."""
    if not rows:
        return section("Found late", "every query found its item first")
    said = "queries whose item is not the first that was found, those with the latest rank first"
    return section("Found late", said, data_table(COLUMNS_OF_QUERIES, late_rows(rows), 3, "Found late"))


def in_letters(value: object) -> str:
    """A query or items as text, not longer than a table has room for."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"
