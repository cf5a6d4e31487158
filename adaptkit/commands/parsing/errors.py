"""Options of ``errors``."""

from __future__ import annotations

from pathlib import Path

from adaptkit.commands.parsing.parser import Commands, number_or_all


def add_errors(commands: Commands) -> None:
    """``errors``: what stands behind a run's numbers."""
    command = commands.add_parser("errors", help="which images a method got wrong, as what, and how sure it was")
    run = "a folder of results, or the name of one in the home"
    command.add_argument("run", type=Path, metavar="RUN", help=run)
    command.add_argument("--method", default="", metavar="M", help="by its label or name (default: the best)")
    command.add_argument("--shots", type=number_or_all, metavar="K", help="default: the most")
    command.add_argument("--seed", type=int, metavar="S", help="default: the first")
    command.add_argument("--test", default="", metavar="SET", help="e.g. new, or a domain (default: the task's own)")
    command.add_argument("--step", type=int, default=0, metavar="T", help="of a sequence of tasks (default: the last)")
    command.add_argument("--most", type=int, default=12, metavar="N", help="surest errors that are told (default: 12)")
    kinds = "write .csv, a line for each error, or .html, a page; may be given again"
    command.add_argument("--out", action="append", default=[], type=Path, metavar="FILE", help=kinds)
    command.add_argument("--all", action="store_true", help="a line of the .csv for every image")
    command.add_argument("--confusion", type=Path, metavar="FILE.csv", help="write the confusion matrix")
    pictures = "pictures of so many errors, and their neighbours, in the page"
    command.add_argument("--thumbnails", type=int, default=0, metavar="N", help=pictures)
    command.add_argument("--dataset", default="", metavar="NAME", help="where the images are now, e.g. folder:photos")
    command.add_argument("--agreement", action="store_true", help="whether the methods make the same errors, instead")
    command.add_argument("--json", action="store_true", help="print JSON")
