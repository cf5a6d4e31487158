"""Tables as text, and sentences with a gap."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from adaptkit.io.safe import line


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns, numbers to the right, with a rule under the head; each cell stays on its line."""
    rows = [[line(cell) for cell in row] for row in rows]
    numeric = [all(row[i][:1].isdigit() or row[i] in ("", "-") for row in rows[1:]) for i in range(len(rows[0]))]
    widths = [max(wide(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            " " * (w - wide(c)) + c if right else c + " " * (w - wide(c))
            for c, w, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def wide(text: str) -> int:
    """How many places of a terminal a text takes: letters of East Asia take two, marks upon letters none.

    >>> wide("gda"), wide("\u72d0")
    (3, 2)
    """
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) or c in "\u200d\ufe0f" else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def template(text: str, where: str) -> str:
    """A sentence that has one gap, ``{}``, for the name of a class.

    Raises:
        ValueError: where it has none or several, naming `where`: all classes would be one, or nobody knows which gap.
    """
    if not isinstance(text, str) or text.count("{}") != 1:
        raise ValueError(f"{where} must have {{}} once, in the place of the class's name; got {text!r}")
    return text


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names that are all different: one that repeats is told by its class's number, from 0.

    Names that only differ in how Unicode composes their letters look the same: they repeat, too.
    """
    out: dict[str, str] = {}
    counts = Counter(map(composed, names))
    for c, name in enumerate(names):
        told = name
        while composed(told) in out or (counts[composed(name)] > 1 and composed(told) in counts):
            told = f"{told} (class {c})"
        out[composed(told)] = told
    return tuple(out.values())


def composed(name: str) -> str:
    """A name with its letters and their marks in one character each, as far as there is one: the same for the same."""
    return unicodedata.normalize("NFC", name)
