"""Options of ``list``, ``show``, ``check`` and ``doctor``."""

from __future__ import annotations

from adaptkit.commands.parsing.parser import Commands


def add_plugins(commands: Commands) -> None:
    """``list``, ``show`` and ``check``: plugins; ``doctor``: them and the machine."""
    command = commands.add_parser("list", help="what is installed, and what it does")
    command.add_argument(
        "role", nargs="?", choices=("methods", "prompts", "supports", "datasets", "backbones", "recipes")
    )
    command.add_argument("--json", action="store_true", help="a list of objects")
    command = commands.add_parser("show", help="the card of a method, or of anything else in a list")
    command.add_argument("name")
    command = commands.add_parser("check", help="the contract, on a plugin file or a method")
    command.add_argument("what", metavar="FILE_OR_METHOD")
    command = commands.add_parser("doctor", help="whether all is well on this machine, and what to do where it is not")
    command.add_argument("--deep", action="store_true", help="hash every file of the cache, and load larger backbones")
    command.add_argument("--json", action="store_true", help="a list of objects")
