"""``adaptkit compare``: runs side by side."""

from __future__ import annotations

from argparse import Namespace

from adaptkit.commands.requested import home_folder
from adaptkit.io.errors import must_be
from adaptkit.io.files import atomic_write


def command(options: Namespace) -> int:
    """Print a comparison, or write it in the formats that are asked for."""
    from adaptkit.report import formats, page, runs
    from adaptkit.report.comparison import Comparison

    writers = {**formats.WRITERS, ".html": page.page}
    for path in options.out:
        if path.suffix not in writers:
            raise ValueError(must_be(f"the suffix of --out {path}", writers, path.suffix))
    kept = home_folder(options) / "results"
    folders = [folder if folder.exists() else kept / folder for folder in options.runs]
    comparison = Comparison(runs.read_runs(folders), options.metric, options.against)
    for path in options.out:
        atomic_write(path, writers[path.suffix](comparison).encode())
        print(path)
    if not options.out:
        print(formats.markdown(comparison), end="")
    return 0
