"""Every command has an example, which its own parser reads; the docs list them all."""

import argparse
import shlex

import pytest

from adaptkit import cli
from adaptkit.commands.parsing.examples import EXAMPLES
from tools.command_line import commands, leaves

THERE = {words: parser for words, _, parser in leaves(cli.parser())}


@pytest.mark.parametrize("words", THERE)
def test_a_command_has_an_example_that_it_reads_and_its_help_ends_with(words):
    example = EXAMPLES.get(words)
    assert example, f"{words} must have an example in adaptkit/commands/parsing/examples.py"
    program, *rest = shlex.split(example.partition(" > ")[0])
    assert program == "adaptkit" and " ".join(rest).startswith(words), f"it must be of {words}; got {example}"
    options = cli.parser().parse_args(rest)
    assert options.command == words.split()[0], "and be read"
    assert " ".join(THERE[words].format_help().split()).endswith(f"example: {example}"), "help must end with it"


def test_the_docs_list_every_command_with_its_arguments():
    text = commands()
    missing = [words for words in THERE if f"### `{words}`" not in text]
    assert not missing, f"the page must have {missing}"
    for words, parser in THERE.items():
        for action in parser._actions:
            if action.help == argparse.SUPPRESS or {*action.option_strings} & {"-h", "--home", "--plugin", "--trust"}:
                continue
            shown = action.metavar or "|".join(map(str, action.choices or ())) or action.dest.upper()
            name = action.option_strings[-1] if action.option_strings else str(shown)
            assert name.replace("|", "\\|") in text, f"{words} must have {name} in the page"
