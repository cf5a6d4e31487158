"""What a comparison says, whatever it is written as: a title, tables, and what stands above and below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptkit.io import safe


@dataclass(frozen=True)
class SheetTable:
    """One table of a sheet.

    Attributes:
        rows: texts, the head first.
        heading: what tells it from others; "" where there is one.
        said: lines under it, which explain its columns.
        second: it belongs to the one before, as the table of differences does; LaTeX leaves it out.
    """

    rows: Sequence[Sequence[str]]
    heading: str = ""
    said: Sequence[str] = ()
    second: bool = False


@dataclass(frozen=True)
class Sheet:
    """Everything that a reader is shown.

    Attributes:
        title: what the numbers are.
        about: lines above the tables: which backbones these are, and what they are not.
        blocks: the tables.
        notes: lines below them.
    """

    title: str
    about: Sequence[str]
    blocks: Sequence[SheetTable]
    notes: Sequence[str]


def as_markdown(sheet: Sheet) -> str:
    """A sheet for a file, or for a program that reads what is printed."""
    about = [f"- {safe.item(line)}" for line in sheet.about]
    lines = [f"# {safe.in_markdown(sheet.title)}", *([""] if about else []), *about]
    for block in sheet.blocks:
        heading = f"{block.heading}:" if block.second else f"## {safe.in_markdown(block.heading)}"
        lines += ["", heading, ""] if block.heading else [""]
        lines += aligned(block.rows)
        lines += ["", *(f"- {safe.item(line)}" for line in block.said)] if block.said else []
    return "\n".join([*lines, "", *(f"- {safe.item(line)}" for line in sheet.notes), ""])


def as_latex(sheet: Sheet) -> str:
    """A sheet's tables with the rules of booktabs, followed by what their marks mean."""
    out = [f"% {safe.in_latex(sheet.title)}; needs \\usepackage{{booktabs}}"]
    for block in sheet.blocks:
        if block.second:
            continue
        head, *body = [" & ".join(map(safe.in_latex, row)) + r" \\" for row in block.rows]
        out += ["", f"% {safe.in_latex(block.heading)}"] if block.heading else [""]
        out += [f"\\begin{{tabular}}{{l{'r' * (len(block.rows[0]) - 1)}}}", r"\toprule", head, r"\midrule", *body]
        out += [r"\bottomrule", r"\end{tabular}"]
    below = [*sheet.about, *(line for block in sheet.blocks if not block.second for line in block.said), *sheet.notes]
    return "\n".join([*out, "", *(rf"\par\footnotesize {safe.in_latex(line)}" for line in below), ""])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text, the first the head, as a table in Markdown that a terminal shows well."""
    escaped = [[safe.in_markdown(text) for text in row] for row in rows]
    widths = [max(map(len, texts)) for texts in zip(*escaped, strict=True)]
    lines = [f"| {' | '.join(text.ljust(w) for text, w in zip(row, widths, strict=True))} |" for row in escaped]
    return [lines[0], f"|{'|'.join('-' * (w + 2) for w in widths)}|", *lines[1:]]
