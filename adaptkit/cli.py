"""The command line. Each command imports what it needs when it runs, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from adaptkit.io.namesake import namesake
from adaptkit.io.notices import on_a_line

RECIPE_HELP = "a YAML file, or a name in 'adaptkit list recipes'"


class Parser(argparse.ArgumentParser):
    """Errors in one line, with the nearest match, exit code 2; and the options that every command has."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 (argparse's own)
        super().__init__(**options)
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
        from difflib import get_close_matches

        wrong = re.search(r"invalid choice: '(.*?)'", message)
        names = [str(name) for action in self._actions for name in action.choices or ()]
        near = get_close_matches(wrong[1], names, n=1) if wrong else []
        hint = f"; did you mean {near[0]!r}?" if near else ""
        self.exit(2, f"{self.prog}: error: {message}{hint}\n")


Commands = argparse._SubParsersAction  # the public way to it is `add_subparsers`, which names no type


def parser() -> argparse.ArgumentParser:
    """Every command and its options."""
    top = Parser(prog="adaptkit", description="Adapt frozen vision-language backbones, with few images or none.")
    top.add_argument("--version", action="version", version=version())
    top.set_defaults(home=None, plugin=[], trust=False)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for group in (add_runs, add_use, add_compare, add_plugins, add_data, add_cache):
        group(commands)
    return top


def add_runs(commands: Commands) -> None:
    """``run``, ``extract`` and ``plan``: recipes."""
    from adaptkit.commands.engine import add_engine

    for name, what in (
        ("run", "extract, adapt, evaluate; print the table"),
        ("extract", "the features that a run will read, and nothing else"),
        ("plan", "what is cached, what would be computed, how long, how much memory"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("recipes", nargs="+", metavar="RECIPE", help=RECIPE_HELP)
        command.add_argument("--only", default="", metavar="A,B", help="only these methods")
        command.add_argument("--shots", default="", metavar="1,2,all", help="in place of the recipe's")
        command.add_argument("--seeds", default="", metavar="1,2,3", help="in place of the recipe's")
        command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the recipe")
        if name != "extract":
            where = "folder for results (default: results/RECIPE in the home)"
            command.add_argument("--out", type=Path, help=where)
        if name != "plan":
            command.add_argument("--quiet", action="store_true", help="no progress bars")
            add_engine(command)
        if name == "run":
            command.add_argument("--verify", action="store_true", help="exit 1 unless the published numbers are met")
            again = "compute again the cells whose records were edited, copied or cut"
            command.add_argument("--recompute", action="store_true", help=again)


def add_use(commands: Commands) -> None:
    """``export`` and ``predict``: from research to use."""
    command = commands.add_parser(
        "export", help="one adapted classifier as a folder: safetensors, JSON and a model card"
    )
    command.add_argument("recipes", nargs=1, metavar="RECIPE", help=RECIPE_HELP)
    command.add_argument("--method", required=True, help="of the recipe, by its name there")
    command.add_argument("--shots", type=number_or_all, metavar="K", help="default: the recipe's most")
    command.add_argument("--seed", type=whole_number, dest="seeds", metavar="S", help="default: the recipe's first")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the recipe")
    command.add_argument("--backbone", default="", metavar="NAME", help="in place of the recipe's")
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new or empty")
    command.add_argument("--quiet", action="store_true", help="no progress bars")
    command.set_defaults(only="")
    command = commands.add_parser("predict", help="labels for pictures by an exported classifier, as CSV")
    command.add_argument("model", type=Path, metavar="MODEL", help="the folder that 'adaptkit export' wrote")
    command.add_argument("images", nargs="+", type=Path, metavar="IMAGES", help="files, and folders at any depth")
    command.add_argument("--out", type=Path, metavar="FILE.csv", help="default: print")
    command.add_argument("--backbone", default="", metavar="NAME", help="where the same towers lie now")
    command.add_argument("--top", type=int, default=1, metavar="K", help="labels of each picture, the likeliest first")


def add_compare(commands: Commands) -> None:
    """``compare``: results."""
    command = commands.add_parser("compare", help="runs side by side: means, significance, published numbers, a page")
    command.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a folder of results, or the name of one in the home"
    )
    command.add_argument("--metric", default="", help="as in the results, or 'harmonic' (default: what tables show)")
    command.add_argument("--against", default="", metavar="METHOD", help="reference (default: the best of each column)")
    some = "only these results, e.g. dataset=dtd or shots=4; may be given again"
    command.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help=some)
    kinds = "write .html, .md, .tex or .csv; may be given again"
    command.add_argument("--out", action="append", default=[], type=Path, metavar="FILE", help=kinds)


def add_plugins(commands: Commands) -> None:
    """``list``, ``show`` and ``check``: plugins."""
    command = commands.add_parser("list", help="what is installed, and what it does")
    command.add_argument(
        "role", nargs="?", choices=("methods", "prompts", "supports", "datasets", "backbones", "recipes")
    )
    command.add_argument("--json", action="store_true", help="a list of objects")
    command = commands.add_parser("show", help="the card of a method, or of anything else in a list")
    command.add_argument("name")
    command = commands.add_parser("check", help="the contract, on a plugin file or a method")
    command.add_argument("what", metavar="FILE_OR_METHOD")


def add_data(commands: Commands) -> None:
    """``data``: datasets and split files."""
    data = commands.add_parser("data", help="what is there of a dataset; supports of a split file")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    command = actions.add_parser("check", help="what is present, missing or different, and what to do")
    command.add_argument("name", metavar="RECIPE_OR_DATASET")
    for name, what in (
        ("supports", "the images a sampler draws, one relative path a line, in its order"),
        ("export", "the same as one JSON file, training and validation images"),
    ):
        command = actions.add_parser(name, help=what)
        command.add_argument("split", type=Path, metavar="SPLIT.json")
        command.add_argument("--shots", type=number_or_all, required=True, help="images of each class, or 'all'")
        command.add_argument("--seed", type=int, required=True)
        command.add_argument("--sampler", default="coop", help="whose draws: coop, val-first, tip, gda, lp++, probe")
        if name == "supports":
            command.add_argument("--val", action="store_true", help="the validation images")
        else:
            command.add_argument("--out", type=Path, required=True, metavar="FILE")


def add_cache(commands: Commands) -> None:
    """``cache``: features on disk."""
    cache = commands.add_parser("cache", help="the feature cache on disk")
    actions = cache.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    actions.add_parser("ls", help="every table: what it holds, rows, bytes")
    verify = actions.add_parser("verify", help="hash every file; exit 1 when one is damaged, and name it")
    verify.add_argument("--repair", action="store_true", help="first write again what says what a table holds")
    gc = actions.add_parser("gc", help="remove leftovers and damaged files")
    gc.add_argument("--older-than", type=float, metavar="DAYS", help="also tables not written to for so long")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 for success, 1 for a check that failed, 2 for a wrong request."""
    from adaptkit.io.home import home_at
    from adaptkit.io.safe import Shown, in_lines

    options = parser().parse_args(argv)
    try:
        if wrong := namesake():
            raise ValueError(wrong)
        with home_at(options.home), on_a_line(), redirect_stdout(cast(TextIO, Shown(sys.stdout))):
            code = importlib.import_module(f"adaptkit.commands.{options.command}").command(options)
        print(end="", flush=True)  # what could not be printed is known here, and not when Python ends
        return code
    except BrokenPipeError:  # the reader has seen enough, as in `adaptkit list | head`
        give_up_printing()
        return 0
    except (ValueError, OSError, MemoryError) as error:  # a wrong recipe, name or value, or the world; else it is a bug
        give_up_printing()
        print(f"adaptkit: error: {in_lines(told(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("adaptkit: stopped; finished rows and cells are kept", file=sys.stderr)
        return 130


def told(error: Exception) -> str:
    """What is wrong, in one line."""
    if isinstance(error, MemoryError):
        return f"the memory must suffice; got {str(error) or 'no more'}; lower batch_size, views or shots"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{str(error.filename)!r}: {error.strerror}"
    return str(error)


def give_up_printing() -> None:
    """Drop what cannot be printed, if that is so: Python would try again at its end, and complain."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


def version() -> str:
    """The version, without importing more than it takes."""
    from adaptkit import __version__

    return f"adaptkit {__version__}"


if __name__ == "__main__":
    sys.exit(main())
