"""Options of ``repro``."""

from __future__ import annotations

from pathlib import Path

from adaptkit.commands.parsing.parser import Commands, Parser, add_json, number_or_all, whole_number


def add_repro(commands: Commands) -> None:
    """``repro``: stored numbers, once more."""
    repro = commands.add_parser("repro", help="whether stored numbers come out again, and which input differs")
    actions = repro.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    command = actions.add_parser("check", help="run stored records again; exit 1 unless all are equal, bit for bit")
    command.add_argument("run", type=Path, metavar="RUN", help="a folder of results, or the name of one in the home")
    command.add_argument("--method", default="", metavar="M", help="only records of this method")
    command.add_argument("--shots", type=number_or_all, metavar="K", help="only of these")
    command.add_argument("--seed", type=whole_number, metavar="S", help="only of this one")
    command.add_argument("--sample", type=int, metavar="N", help="only so many of them, evenly spread (default: all)")
    add_json(command)
