"""Options of ``auto``."""

from __future__ import annotations

from pathlib import Path

from adaptkit.commands.parsing.machine import add_machine
from adaptkit.commands.parsing.parser import Commands, add_json, whole_number


def add_auto(commands: Commands) -> None:
    """``auto``: from images to a classifier."""
    command = commands.add_parser("auto", help="from your images to the classifier that does best on them")
    command.add_argument("dataset", metavar="DATASET", help="e.g. folder:photos, with a folder for each class")
    command.add_argument("--minutes", type=float, default=10.0, metavar="M", help="that it may take; default 10")
    command.add_argument("--backbone", default="", metavar="NAME", help="default: the best that needs no hub")
    names = "of images without labels: names with commas between, or a file with one a line"
    command.add_argument("--classes", default="", metavar="A,B,C", help=names)
    command.add_argument("--out", type=Path, metavar="FOLDER", help="new or empty; default: auto/DATASET in the home")
    command.add_argument("--seed", type=whole_number, default="1", metavar="S", help="of folds and training; default 1")
    add_machine(command)
    add_json(command)
    command.add_argument("--quiet", action="store_true", help="no progress bars, and only the summary")
