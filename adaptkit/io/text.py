"""Tables as text, and sentences with a gap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from adaptkit.io.safe import line


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns, numbers to the right, with a rule under the head; each cell stays on its line."""
    rows = [[line(cell) for cell in row] for row in rows]
    numeric = [all(row[i][:1].isdigit() or row[i] in ("", "-") for row in rows[1:]) for i in range(len(rows[0]))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def template(text: str, where: str) -> str:
    """A sentence that has one gap, ``{}``, for the name of a class.

    Raises:
        ValueError: where it has none or several, naming `where`: all classes would be one, or nobody knows which gap.
    """
    if not isinstance(text, str) or text.count("{}") != 1:
        raise ValueError(f"{where} must have {{}} once, in the place of the class's name; got {text!r}")
    return text


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names that are all different: one that repeats is told by its class's number, from 0."""
    out: dict[str, None] = {}
    counts = Counter(names)
    for c, name in enumerate(names):
        told = name
        while told in out or (counts[name] > 1 and told in counts):
            told = f"{told} (class {c})"
        out[told] = None
    return tuple(out)
