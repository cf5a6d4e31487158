"""What a user must know though nothing failed: a warning in Python, one line on the command line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from adaptkit.io.safe import line as line_of


class Notice(UserWarning):
    """Something about the data or the request that makes answers worth less than they seem."""


def notice(text: str) -> None:
    """Warn, in one line."""
    warnings.warn(" ".join(text.split()), Notice, stacklevel=3)


@contextmanager
def on_a_line() -> Iterator[None]:
    """Show notices as lines on the error output, each once, whatever is done about other warnings."""
    shown: set[str] = set()
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, Notice):
            before(message, category, filename, lineno, file, line)
        elif str(message) not in shown:
            shown.add(str(message))
            sys.stderr.write(f"adaptkit: warning: {line_of(str(message))}\n")

    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        warnings.showwarning = show
        yield
