"""Options of ``data``."""

from __future__ import annotations

from pathlib import Path

from adaptkit.commands.parsing.parser import Commands, Parser, add_json, number_or_all

LOOK_WITH = "packaged:lite0-minilm"


def add_data(commands: Commands) -> None:
    """``data``: datasets and split files."""
    data = commands.add_parser("data", help="what is there of a dataset; supports of a split file")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    command = actions.add_parser("check", help="what is present, missing or different, and what to do")
    command.add_argument("name", metavar="RECIPE_OR_DATASET")
    add_json(command)
    command = actions.add_parser("look", help="copies, near-copies, likely wrong labels, and what the pictures are")
    command.add_argument("name", metavar="DATASET")
    command.add_argument(
        "--backbone",
        default=LOOK_WITH,
        metavar="NAME",
        help=f"whose features tell; none for none ({LOOK_WITH})",
    )
    command.add_argument("--with-test", action="store_true", help="read the labels of test, too")
    command.add_argument("--out", type=Path, metavar="FILE", help="write a page, .html, or a table, .csv")
    command.add_argument("--quiet", action="store_true", help="no bars")
    command = actions.add_parser("get", help="get datasets from where their publishers have them, and check them")
    command.add_argument("names", nargs="*", metavar="DATASET", help="or 'all' that need no hand; none lists them")
    command.add_argument("--root", type=Path, metavar="FOLDER", help="where datasets lie ($ADAPTKIT_DATA)")
    command.add_argument("--keep", action="store_true", help="leave archives that were got beside what is in them")
    command.add_argument("--list", action="store_true", help="every dataset: size, licence, whether a hand is needed")
    add_json(command, "the list as JSON, with who states what")
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
