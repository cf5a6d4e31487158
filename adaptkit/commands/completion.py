"""``adaptkit completion``: what a shell needs to complete commands, options, names and files."""

from __future__ import annotations

import argparse
import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adaptkit.commands.requested import load_files
from adaptkit.runs import plugins, shelf

SHELL_MISSING = "shtab must be installed for adaptkit completion; got none; pip install 'adaptkit-vlm[completion]'"
COMPLETED = {
    "recipes": "recipes",
    "names": "surveyed",
    "dataset": "surveyed",
    "only": "methods",
    "method": "methods",
    "what": "checked",
    "against": "methods",
}
"""What stands behind an argument, by its name in the options; paths are files, and choices complete themselves."""
SHOWN_BY = {"show": "named", "data check": "surveyed"}  # of commands whose argument is a ``name``


def command(options: Namespace) -> int:
    """Print the script."""
    try:
        import shtab
    except ImportError as error:
        raise ValueError(SHELL_MISSING) from error
    load_files(options)
    for prog, action in arguments_of(options.parser):
        kind = SHOWN_BY.get(prog.partition(" ")[2]) if action.dest == "name" else COMPLETED.get(action.dest)
        if kind:
            action.complete = {shell: f"_adaptkit_{kind}" for shell in ("bash", "zsh")} | {  # type: ignore[attr-defined]
                "tcsh": f"({' '.join(completing_names(kind))})"
            }
        elif action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    preamble: Any = {"bash": in_bash(), "zsh": in_zsh()}  # shtab's own type is of text alone
    print(shtab.complete(options.parser, options.shell, preamble=preamble))
    return 0


def arguments_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Every argument of a parser and of those below it, with what it is called by."""
    for action in parser._actions:  # argparse tells of them in no other way
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from arguments_of(below)
        else:
            yield parser.prog, action


def completing_names(kind: str) -> list[str]:
    """Words that complete an argument of one kind; none in which a shell could see more than a name."""
    methods, recipes, datasets = [*plugins.table("methods")], shelf.names(), [*plugins.table("datasets")]
    every = [name for role in plugins.ROLES for name in plugins.table(role)]
    named = {"recipes": recipes, "surveyed": [*recipes, *datasets], "named": every}
    return sorted({name for name in named.get(kind, methods) if re.fullmatch(r"[\w.+/-]+", name)})


def in_bash() -> str:
    """A function for each kind: words, and files where files may be meant; methods may stand behind a comma."""
    lines = []
    for kind, files in FILES_OF.items():
        lines += [f"_adaptkit_{kind}() {{", '  local own="${1##*,}"', '  local before="${1%"$own"}"']
        lines.append(f"""  compgen -P "$before" -W "{words(completing_names(kind))}" -- "$own\"""")
        lines += [f"  compgen -f -X '!*{files}' -- \"$1\"", '  compgen -d -- "$1"'] if files else []
        lines.append("}")
    return "\n".join(lines)


def in_zsh() -> str:
    """The same."""
    lines = []
    for kind, files in FILES_OF.items():
        lines += [f"_adaptkit_{kind}() {{", "  compset -P '*,'", f"  compadd -- {words(completing_names(kind))}"]
        lines += [f"  _files -g '*{files}'"] if files else []
        lines.append("}")
    return "\n".join(lines)


FILES_OF = {"recipes": ".yaml", "methods": "", "checked": ".py", "named": "", "surveyed": ".yaml"}  # by their suffix


def words(names: Sequence[str]) -> str:
    """Names as one argument's words."""
    return " ".join(names)
