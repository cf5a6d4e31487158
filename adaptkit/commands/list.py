"""``adaptkit list``: what is installed."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

from adaptkit.commands.requested import load_files
from adaptkit.io.jsons import strict_json
from adaptkit.io.safe import in_lines
from adaptkit.io.text import columns
from adaptkit.runs import plugins, shelf

WIDTH = 119  # of a line
HEADS = {"trained": "train"}  # of columns, where a key is wider than what is below it


def command(options: Namespace) -> int:
    """Print tables of plugins."""
    load_files(options)
    tables = {role: _entries(role) for role in _roles(options)}
    if options.json:
        print(strict_json([entry for entries in tables.values() for entry in entries]))
    for role, entries in tables.items() if not options.json else ():
        print(f"{role} ({len(entries)})\n{_as_text(entries)}\n")
    for name, trace in plugins.broken.items():
        print(f"plugin {name!r} could not be loaded:\n{in_lines(trace)}", file=sys.stderr)
    return 0


def _roles(options: Namespace) -> tuple[str, ...]:
    return (options.role,) if options.role else (*plugins.ROLES, "recipes")


def _entries(role: str) -> list[dict[str, Any]]:
    from adaptkit.report.cards import entry

    return [entry(role, name) for name in (shelf.names() if role == "recipes" else plugins.table(role))]


def _as_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """A line each: of a method, its plugin and source are left to ``show``; what it does is cut at a word."""
    method = bool(entries) and entries[0]["role"] == "methods"
    keys = [k for k in entries[0] if k != "role" and not (method and k in ("plugin", "source"))] if entries else []
    rows = [[HEADS.get(key, key) for key in keys], *([_cell(e[k]) for k in keys] for e in entries)]
    room = max(20, WIDTH - sum(2 + max(len(row[i]) for row in rows) for i, k in enumerate(keys) if k != "about"))
    for row in rows:
        row[:] = [shorten(c, room, placeholder=" ...") if k == "about" else c for k, c in zip(keys, row, strict=True)]
    return columns(rows)


def _cell(value: object) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
