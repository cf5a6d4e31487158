"""``adaptkit compare``: runs side by side."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial

from adaptkit.commands.requested import home_folder
from adaptkit.io.errors import must_be
from adaptkit.io.files import atomic_write, refuse_folder


def command(options: Namespace) -> int:
    """Print a comparison, or write it in the formats that are asked for."""
    from adaptkit.report import formats, page, runs
    from adaptkit.report.comparison import Comparison
    from adaptkit.report.where import where

    if options.thumbnails < 0:
        raise ValueError(f"--thumbnails must be 0 or more; got {options.thumbnails}")
    html = partial(page.page, thumbnails=options.thumbnails, home=home_folder(options))
    writers: dict[str, Callable[[Comparison], str]] = {**formats.WRITERS, ".html": html}
    for path in options.out:
        refuse_folder(path)
        if path.suffix not in writers:
            raise ValueError(must_be(f"the suffix of --out {path}", writers, path.suffix))
    kept = home_folder(options) / "results"
    folders = [folder if folder.exists() else kept / folder for folder in options.runs]
    found = where(runs.read_runs(folders), options.where)
    comparison = Comparison(found, options.metric, options.against)
    for path in options.out:
        atomic_write(path, writers[path.suffix](comparison).encode())
        print(path)
    if not options.out:
        print(formats.markdown(comparison), end="")
    return 0
