"""Options of ``run``, ``extract`` and ``plan``."""

from __future__ import annotations

from pathlib import Path

from adaptkit.commands.engine import add_engine
from adaptkit.commands.parsing.machine import add_machine
from adaptkit.commands.parsing.parser import RECIPE_HELP, Commands, add_json, add_shown


def add_runs(commands: Commands) -> None:
    """``run``, ``extract`` and ``plan``: recipes."""
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
        add_machine(command, ray=name != "plan")
        if name != "extract":
            where = "folder for results (default: results/RECIPE in the home)"
            command.add_argument("--out", type=Path, help=where)
        if name != "plan":
            command.add_argument("--quiet", action="store_true", help="no progress bars")
            add_engine(command)
        if name != "run":
            add_json(command, "a list of objects, one for each recipe, in place of text")
        if name == "run":
            told = "tell of each result, beside the records: csv, tensorboard, wandb, mlflow"
            command.add_argument("--report", default="", metavar="A,B", help=told)
            command.add_argument("--verify", action="store_true", help="exit 1 unless the published numbers are met")
            add_shown(command)
            again = "compute again the cells whose records were edited, copied or cut"
            command.add_argument("--recompute", action="store_true", help=again)
