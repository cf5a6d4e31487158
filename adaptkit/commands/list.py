"""``adaptkit list``: what is installed."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import Any

from adaptkit.commands.requested import load_files
from adaptkit.io.text import columns
from adaptkit.runs import plugins, recipe


def command(options: Namespace) -> int:
    """Print tables of plugins."""
    load_files(options)
    tables = {role: _entries(role) for role in _roles(options)}
    if options.json:
        print(json.dumps([entry for entries in tables.values() for entry in entries], indent=1))
    for role, entries in tables.items() if not options.json else ():
        keys = [k for k in entries[0] if k != "role"] if entries else []
        print(f"{role} ({len(entries)})")
        print(columns([keys, *([_cell(e[k]) for k in keys] for e in entries)]) + "\n")
    for name, trace in plugins.broken.items():
        print(f"plugin {name!r} could not be loaded:\n{trace}", file=sys.stderr)
    return 0


def _roles(options: Namespace) -> tuple[str, ...]:
    return (options.role,) if options.role else (*plugins.ROLES, "recipes")


def _entries(role: str) -> list[dict[str, Any]]:
    from adaptkit.report.cards import entry

    return [entry(role, name) for name in (recipe.names() if role == "recipes" else plugins.table(role))]


def _cell(value: object) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
