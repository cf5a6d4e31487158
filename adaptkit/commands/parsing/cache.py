"""Options of ``cache``."""

from __future__ import annotations

from adaptkit.commands.parsing.parser import Commands, Parser, add_json


def add_cache(commands: Commands) -> None:
    """``cache``: features on disk."""
    cache = commands.add_parser("cache", help="the feature cache on disk")
    actions = cache.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    add_json(actions.add_parser("ls", help="every table: what it holds, rows, bytes"))
    verify = actions.add_parser("verify", help="hash every file; exit 1 when one is damaged, and name it")
    add_json(verify)
    verify.add_argument("--repair", action="store_true", help="first write again what says what a table holds")
    gc = actions.add_parser("gc", help="remove leftovers and damaged files")
    add_json(gc)
    gc.add_argument("--older-than", type=float, metavar="DAYS", help="also tables not written to for so long")
