"""``adaptkit compare``: runs side by side."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from adaptkit.commands.requested import home_folder
from adaptkit.commands.tables import print_sheet
from adaptkit.io.errors import must_be
from adaptkit.io.files import atomic_write, refuse_folder

if TYPE_CHECKING:
    from adaptkit.report.runs import Run
    from adaptkit.report.sheets import Sheet

Writers = Mapping[str, Callable[[], bytes]]  # by suffix


def command(options: Namespace) -> int:
    """Print a comparison, or write it in the formats that are asked for."""
    from adaptkit.report import runs
    from adaptkit.report.where import where

    if options.thumbnails < 0:
        raise ValueError(f"--thumbnails must be 0 or more; got {options.thumbnails}")
    for path in options.out:
        refuse_folder(path)
    kept = home_folder(options) / "results"
    folders = [folder if folder.exists() else kept / folder for folder in options.runs]
    found = where(runs.read_runs(folders), options.where)
    backbones = {str(result.protocol.get("backbone")) for run in found for result in run.results}
    by = options.by or "backbone" * (len(backbones) > 1)
    sheet, writers = beside_each_other(options, found, by) if by else compared(options, found)
    for path in options.out:
        if path.suffix not in writers:
            raise ValueError(
                must_be(f"the suffix of --out {path}{f' with --by {by}' * bool(by)}", writers, path.suffix)
            )
    for path in options.out:
        atomic_write(path, writers[path.suffix]())
        print(path, file=sys.stderr if options.json else sys.stdout)
    if options.json:
        print(writers[".json"]().decode())
    elif not options.out:
        print_sheet(sheet)
    return 0


def compared(options: Namespace, found: Sequence[Run]) -> tuple[Sheet, Writers]:
    """Methods compared, and what writes that."""
    from adaptkit.report import formats, page
    from adaptkit.report.comparison import Comparison
    from adaptkit.report.json_tables import comparison_json
    from adaptkit.report.plot import as_picture

    comparison = Comparison(found, options.metric, options.against, options.spread)
    texts: Mapping[str, Callable[[Comparison], str]] = {
        **formats.WRITERS,
        ".html": partial(page.page, thumbnails=options.thumbnails, home=home_folder(options)),
        ".json": comparison_json,
    }
    writers = {suffix: lambda write=write: write(comparison).encode() for suffix, write in texts.items()}
    pictures = {
        f".{kind}": lambda kind=kind: as_picture(formats.of_comparison(comparison), kind) for kind in KINDS_OF_PICTURE
    }
    return formats.sheet(comparison), {**writers, **pictures}


def beside_each_other(options: Namespace, found: Sequence[Run], key: str) -> tuple[Sheet, Writers]:
    """Backbones, datasets or whatever differs side by side, and what writes that."""
    from adaptkit.io.safe import csv_text
    from adaptkit.report.across import Across, numbers_across, sheet_across
    from adaptkit.report.json_tables import across_json
    from adaptkit.report.sheets import as_latex, as_markdown

    across = Across(found, key, options.metric, options.against, options.spread)
    sheet, numbers = sheet_across(across), numbers_across(across)
    lines = [["" if value is None else value for value in number.values()] for number in numbers]
    return sheet, {
        ".md": lambda: as_markdown(sheet).encode(),
        ".tex": lambda: as_latex(sheet).encode(),
        ".csv": lambda: csv_text([[*numbers[0]], *lines]).encode(),
        ".json": lambda: across_json(across).encode(),
    }


KINDS_OF_PICTURE = ("svg", "pdf", "png")
