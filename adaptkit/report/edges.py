"""Searches that ended at the edge of their grid, as tables mark them and notes name them."""

from __future__ import annotations

from collections.abc import Sequence

from adaptkit.io.safe import line
from adaptkit.runs.results import Result

MARK = "^"
"""Behind a number of a table: a hyperparameter did best at the edge of its grid."""


def marked(results: Sequence[Result]) -> str:
    """The mark where a search behind some results ended at an edge; "" elsewhere."""
    return MARK if any(found.edge for result in results for found in result.searched.values()) else ""


def edge_lines(results: Sequence[Result]) -> list[str]:
    """A line that names the hyperparameters which did best at an edge, by method; nothing where none did."""
    at: dict[str, dict[str, int]] = {}
    for result in results:
        for name, found in result.searched.items():
            if found.edge:
                by_edge = at.setdefault(result.method, {})
                by_edge[f"{name} {found.edge}"] = by_edge.get(f"{name} {found.edge}", 0) + 1
    if not at:
        return []
    named = "; ".join(
        f"{line(method)} ({', '.join(f'{what} in {count}' for what, count in edges.items())})"
        for method, edges in at.items()
    )
    oracle = any(result.protocol.get("select") == "oracle" for result in results)
    wider = oracle or any(result.protocol.get("search") == "widen" for result in results)
    more = "a wider grid may do better" if wider else "search: widen goes on beyond it"
    return [f"{MARK} best at the edge of the grid, cells: {named}; {more}"]
