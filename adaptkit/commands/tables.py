"""Tables as commands print them: fitted to a terminal, plain where a file or a program reads."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Literal, TextIO

from adaptkit.io.safe import line, spelled
from adaptkit.io.text import columns, wide

if TYPE_CHECKING:
    from adaptkit.report.sheets import Sheet

LEAST_NAME = 12  # characters that the names of rows have at least, before they are folded


def on_terminal() -> bool:
    """Whether a person reads what is printed."""
    return sys.stdout.isatty()


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the first the head: on a terminal as wide as it is, with no number cut; else one line a row."""
    width = shutil.get_terminal_size().columns
    rows = [[spelled(line(cell), sys.stdout.encoding or "utf-8") for cell in row] for row in rows]
    parts = split_to_fit(rows, width) if on_terminal() else []
    if not parts:
        print(columns(rows))
    for i, part in enumerate(parts):
        if i:
            print()
        print_part(part, width)


def print_part(rows: Sequence[Sequence[str]], width: int) -> None:
    """Print rows that fit, with the terminal's own look."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    stream: TextIO = getattr(sys.stdout, "stream", sys.stdout)  # past what would write colours as text
    console = Console(file=stream, width=width, highlight=False, emoji=False)
    grid = Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for i, title in enumerate(rows[0]):
        widest = None if i else name_width(rows, width)
        justify: Literal["left", "right"] = "right" if i else "left"
        grid.add_column(Text(title), justify=justify, no_wrap=i > 0, overflow="fold", max_width=widest)
    for row in rows[1:]:
        grid.add_row(*map(Text, row))
    with console.capture() as drawn:
        console.print(grid)
    stream.write(
        spelled("".join(f"{text.rstrip()}\n" for text in drawn.get().splitlines()), stream.encoding or "utf-8")
    )


def split_to_fit(rows: Sequence[Sequence[str]], width: int) -> list[list[list[str]]]:
    """Tables of some columns each, all with the first, that fit into a width; none where a column alone does not."""
    widths = [2 + max(wide(row[i]) for row in rows) for i in range(len(rows[0]))]
    first = 2 + name_width(rows, width)
    parts, used = list[list[int]](), width + 1
    for i, needed in enumerate(widths[1:], 1):
        if first + needed - 2 > width:
            return []
        if used + needed > width + 2:
            parts.append([])
            used = first
        parts[-1].append(i)
        used += needed
    return [[[row[0], *(row[i] for i in part)] for row in rows] for part in parts or [[]]]


def name_width(rows: Sequence[Sequence[str]], width: int) -> int:
    """Characters for the names of rows: as many as they have, up to two fifths of the terminal."""
    return min(max(wide(row[0]) for row in rows), max(LEAST_NAME, 2 * width // 5))


def print_lines(lines: Sequence[str]) -> None:
    """Print sentences, one a line; on a terminal they are wrapped, those after the first line stand back."""
    width = shutil.get_terminal_size().columns
    for text in lines:
        for part in wrap(line(text), max(width, 20), subsequent_indent="  ") if on_terminal() else [line(text)]:
            print(part)


def print_sheet(sheet: Sheet) -> None:
    """Print a comparison: on a terminal fitted to it, else as Markdown."""
    from adaptkit.report.sheets import as_markdown

    if not on_terminal():
        print(as_markdown(sheet), end="")
        return
    print_lines([sheet.title, *sheet.about])
    for block in sheet.blocks:
        print("\n" * bool(block.heading) + block.heading)
        print("\n" * bool(block.heading), end="")
        print_table(block.rows)
        print_lines(block.said)
    print()
    print_lines(sheet.notes)
