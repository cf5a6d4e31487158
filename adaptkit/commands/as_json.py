"""``--json``: standard output holds JSON alone; whatever else there is to say goes to the error output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout

from adaptkit.io.jsons import strict_json


@contextmanager
def json_alone(asked: bool, indent: int | None = 1) -> Iterator[Callable[[object], None]]:
    """Where JSON is asked for, let what is printed inside go to the error output.

    Args:
        asked: for JSON.
        indent: of a value; none puts it on one line.

    Yields:
        what prints one value as JSON, where that is expected.
    """
    out = sys.stdout

    def answer(value: object) -> None:
        print(strict_json(value, indent), file=out, flush=indent is None)

    with redirect_stdout(sys.stderr if asked else out):
        yield answer
