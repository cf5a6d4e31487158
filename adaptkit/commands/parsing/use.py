"""Options of ``export`` and ``predict``."""

from __future__ import annotations

from pathlib import Path

from adaptkit.commands.parsing.machine import add_machine
from adaptkit.commands.parsing.parser import RECIPE_HELP, Commands, add_json, number_or_all, whole_number


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
    add_machine(command)
    command.set_defaults(only="")
    command = commands.add_parser("predict", help="labels for pictures by an exported classifier, as CSV")
    command.add_argument("model", type=Path, metavar="MODEL", help="the folder that 'adaptkit export' wrote")
    command.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGES",
        help="files, and folders at any depth; of text, a query a line, where it searches",
    )
    command.add_argument("--out", type=Path, metavar="FILE.csv", help="default: print")
    command.add_argument("--backbone", default="", metavar="NAME", help="where the same towers lie now")
    command.add_argument("--top", type=int, default=1, metavar="K", help="labels of each picture, the likeliest first")
    command.add_argument("--maps", type=Path, metavar="FOLDER", help="write each picture's map there, as PNG")
    add_json(command, "lines of JSON, one for each picture, in place of CSV")
    add_machine(command, precision=False)  # which is the classifier's own
