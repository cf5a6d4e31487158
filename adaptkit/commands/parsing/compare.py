"""Options of ``compare``."""

from __future__ import annotations

from pathlib import Path

from adaptkit.commands.parsing.parser import Commands, add_shown


def add_compare(commands: Commands) -> None:
    """``compare``: results."""
    command = commands.add_parser("compare", help="runs side by side: means, significance, published numbers, a page")
    command.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a folder of results, or the name of one in the home"
    )
    by = "side by side what differs, e.g. backbone or dataset (default: backbones, where there are several)"
    command.add_argument("--by", default="", metavar="KEY", help=by)
    command.add_argument("--metric", default="", help="as in the results, or 'harmonic' (default: what tables show)")
    against = "reference (default: the best of each column); with --by, one of its values (default: the first)"
    command.add_argument("--against", default="", metavar="METHOD", help=against)
    some = "only these results, e.g. dataset=dtd or shots=4; again: of another key, both; of the same, either"
    command.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help=some)
    pictures = "pictures of so many errors of the best method, and their neighbours, in the .html"
    command.add_argument("--thumbnails", type=int, default=0, metavar="N", help=pictures)
    add_shown(command)
    kinds = "write .html, .md, .tex, .csv, .json, .svg, .pdf or .png; may be given again"
    command.add_argument("--out", action="append", default=[], type=Path, metavar="FILE", help=kinds)
