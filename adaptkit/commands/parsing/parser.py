"""A parser whose errors are one line, the options that every command has, and numbers as they are written."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, NoReturn

from adaptkit.commands.parsing.examples import example_of

RECIPE_HELP = "a YAML file, or a name in 'adaptkit list recipes'"


class Parser(argparse.ArgumentParser):
    """Errors in one line, with the nearest match, exit code 2; and the options that every command has."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 (argparse's own)
        super().__init__(**{"epilog": example_of(options.get("prog", ""))} | options)
        self.add_argument(
            "--home", type=Path, default=argparse.SUPPRESS, help="where features and results live ($ADAPTKIT_HOME)"
        )
        self.add_argument(
            "--plugin",
            action="append",
            type=Path,
            default=argparse.SUPPRESS,
            metavar="FILE",
            help="load this plugin file too",
        )
        trust = "run the plugin files that a recipe names; without it, those that --plugin names, too"
        self.add_argument("--trust", action="store_true", default=argparse.SUPPRESS, help=trust)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave."""
        from adaptkit.io.errors import alike

        wrong = re.search(r"invalid choice: '(.*?)'", message)
        names = [str(name) for action in self._actions for name in action.choices or ()]
        hint = alike(wrong[1], names) if wrong else ""
        self.exit(2, f"{self.prog}: error: {message}{hint}\n")


Commands = argparse._SubParsersAction  # the public way to it is `add_subparsers`, which names no type


def add_json(command: argparse.ArgumentParser, what: str = "an object, in place of text") -> None:
    """Add ``--json``."""
    command.add_argument("--json", action="store_true", help=what)


def whole_number(text: str) -> str:
    """A whole number, as text.

    Raises:
        argparse.ArgumentTypeError: when it is none.
    """
    try:
        return str(int(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number; got {text!r}") from None


def number_or_all(text: str) -> str:
    """A whole number, as text, or ``all``."""
    return text if text == "all" else whole_number(text)


def add_shown(command: argparse.ArgumentParser) -> None:
    """How numbers are shown: what stands behind a ±, and whether a program reads them."""
    spreads = "behind ±, over seeds: the 95 %% interval of the mean (default), or the standard deviation"
    command.add_argument("--spread", choices=("interval", "std"), default="interval", help=spreads)
    add_json(command, "one JSON object, see docs/tables.md; the rest to stderr")
