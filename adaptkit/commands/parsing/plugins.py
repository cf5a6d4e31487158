"""Options of ``list``, ``show``, ``check``, ``doctor``, ``new`` and ``completion``."""

from __future__ import annotations

from pathlib import Path

from adaptkit.commands.parsing.parser import Commands, Parser, add_json

METHOD_KINDS = ("closed-form", "trained", "test-time", "stream", "transductive", "over-a-base")


def add_plugins(commands: Commands) -> None:
    """``list``, ``show``, ``check``, ``new`` and ``completion``: plugins; ``doctor``: them and the machine."""
    command = commands.add_parser("list", help="what is installed, and what it does")
    command.add_argument(
        "role", nargs="?", choices=("methods", "prompts", "supports", "datasets", "backbones", "recipes")
    )
    add_json(command, "a list of objects, in place of text")
    command = commands.add_parser("show", help="the card of a method, or of anything else in a list")
    command.add_argument("name")
    add_json(command)
    command = commands.add_parser("check", help="the contract, on a plugin file or a method")
    command.add_argument("what", metavar="FILE_OR_METHOD")
    add_json(command)
    command = commands.add_parser("doctor", help="whether all is well on this machine, and what to do where it is not")
    command.add_argument("--deep", action="store_true", help="hash every file of the cache, and load larger backbones")
    add_json(command, "a list of objects, in place of text")
    new = commands.add_parser("new", help="a file to start from: a method that passes 'check' as it is")
    things = new.add_subparsers(dest="thing", required=True, metavar="THING", parser_class=Parser)
    command = things.add_parser("method", help="a method of your own, in one file")
    command.add_argument("name", metavar="NAME", help="in kebab-case, e.g. my-method")
    what = "what it does: solved, trained, for each image, along a stream, over all queries, over another's answers"
    command.add_argument("--kind", choices=METHOD_KINDS, default=METHOD_KINDS[0], help=what)
    command.add_argument("--out", type=Path, metavar="FILE.py", help="default: the name in snake_case, here")
    command = commands.add_parser("completion", help="a script by which a shell completes what is typed")
    command.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="e.g. source <(adaptkit completion bash)")
