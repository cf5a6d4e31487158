"""The command line. Each command imports what it needs when it runs, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TextIO, cast

from adaptkit.commands.parsing import auto, cache, compare, data, errors, plugins, repro, runs, use
from adaptkit.commands.parsing.parser import Parser
from adaptkit.io.namesake import namesake
from adaptkit.io.notices import on_a_line


def parser() -> argparse.ArgumentParser:
    """Every command and its options."""
    top = Parser(prog="adaptkit", description="Adapt frozen vision-language backbones, with few images or none.")
    top.add_argument("--version", action="version", version=version())
    top.set_defaults(home=None, plugin=[], trust=False, parser=top)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for group in (
        runs.add_runs,
        use.add_use,
        auto.add_auto,
        compare.add_compare,
        errors.add_errors,
        repro.add_repro,
        plugins.add_plugins,
        data.add_data,
        cache.add_cache,
    ):
        group(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 for success, 1 for a check that failed, 2 for a wrong request."""
    from adaptkit.io.home import home_at
    from adaptkit.io.safe import Shown, in_lines

    options = parser().parse_args(argv)
    try:
        if wrong := namesake():
            raise ValueError(wrong)
        with home_at(options.home), on_a_line(), redirect_stdout(cast(TextIO, Shown(sys.stdout))):
            code = importlib.import_module(f"adaptkit.commands.{options.command}").command(options)
        print(end="", flush=True)  # what could not be printed is known here, and not when Python ends
        return code
    except BrokenPipeError:  # the reader has seen enough, as in `adaptkit list | head`
        give_up_printing()
        return 0
    except (ValueError, OSError, MemoryError) as error:  # a wrong recipe, name or value, or the world; else it is a bug
        give_up_printing()
        print(f"adaptkit: error: {in_lines(told(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("adaptkit: stopped; finished rows and cells are kept", file=sys.stderr)
        return 130


def told(error: Exception) -> str:
    """What is wrong, in one line."""
    if isinstance(error, MemoryError):
        return f"the memory must suffice; got {str(error) or 'no more'}; lower batch_size, views or shots"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{str(error.filename)!r}: {error.strerror}"
    return str(error)


def give_up_printing() -> None:
    """Drop what cannot be printed, if that is so: Python would try again at its end, and complain."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def version() -> str:
    """The version, without importing more than it takes."""
    from adaptkit import __version__

    return f"adaptkit {__version__}"


if __name__ == "__main__":
    sys.exit(main())
