"""The docs' list of commands, made of the parsers that read them."""

from __future__ import annotations

import argparse
import html
from collections.abc import Iterator

from adaptkit import cli
from adaptkit.commands.parsing.examples import EXAMPLES

EVERYWHERE = ("-h", "--home", "--plugin", "--trust")  # options that every command has


def leaves(parser: argparse.ArgumentParser, about: str = "") -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Every command that can be given: its words, what it does, and its parser."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield parser.prog.partition(" ")[2], about, parser
    for group in below:
        said = {action.dest: action.help or "" for action in group._choices_actions}
        for name, each in group.choices.items():
            yield from leaves(each, said.get(name, ""))


def commands() -> str:
    """A section for each command, in Markdown: what it does, an example, its arguments."""
    out = ["## Commands", "", "Every command takes `--home FOLDER`, `--plugin FILE` and `--trust`, too.", ""]
    for words, about, parser in leaves(cli.parser()):
        out += [f"### `{words}`", "", f"{about[:1].upper()}{about[1:]}.", ""]
        if example := EXAMPLES.get(words):
            out += ["```bash", example, "```", ""]
        rows = [row for action in parser._actions if (row := argument(action))]
        out += ["| argument | |", "|---|---|", *rows, ""] if rows else []
    return "\n".join(out)


def argument(action: argparse.Action) -> str:
    """A row for one argument; nothing for those of every command."""
    if set(action.option_strings) & {*EVERYWHERE} or action.help == argparse.SUPPRESS:
        return ""
    shown = str(action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper()))
    name = " ".join([*action.option_strings[-1:], *([shown] if action.nargs != 0 else [])])
    return f"| `{cell(name)}` | {html.escape(cell(action.help or ''), quote=False)} |"


def cell(text: str) -> str:
    """Text as a cell of a table."""
    return text.replace("%%", "%").replace("|", "\\|")
