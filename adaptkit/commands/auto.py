"""``adaptkit auto``: from images to the classifier that does best on them."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

from adaptkit.commands.requested import home_folder, load_files


def command(options: Namespace) -> int:
    """Try methods, choose one, and write it with a page."""
    from adaptkit.automatic.auto import auto
    from adaptkit.automatic.summary import summary_lines

    load_files(options)
    home = home_folder(options)
    folder = options.out or free_folder(home / "auto", options.dataset)
    how = {"minutes": options.minutes, "backbone": options.backbone, "seed": int(options.seed), "home": home}
    say: Callable[[str], object] = (lambda _: None) if options.quiet else tell_progress
    if options.classes:
        return unlabelled(options, folder, progress=not options.quiet, say=say, **how)
    result = auto(options.dataset, out=folder, progress=not options.quiet, say=say, **how)
    print("\n".join(summary_lines(result)))
    return 0


def unlabelled(options: Namespace, folder: Path, **how: Any) -> int:  # noqa: ANN401 (arguments of auto_unlabelled)
    """Answer images without labels, as far as that can be."""
    from adaptkit.automatic.unlabelled import auto_unlabelled, names_asked

    place = options.dataset.removeprefix("folder:")
    result = auto_unlabelled(place, names_asked(options.classes), out=folder, **how)
    print(f"{len(result.paths):,} images without labels, {len(result.classnames)} classes")
    print("\n".join([*result.lines, f"answers: {folder / 'labels.csv'}"]))
    print(f"next:\n  adaptkit predict {quote(str(folder / 'classifier'))} photos --out labels.csv  # zero-shot")
    return 0


def tell_progress(text: str) -> None:
    """A line for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def free_folder(root: Path, dataset: str) -> Path:
    """A folder named for a dataset, with a number where there is one already."""
    name = re.sub(r"[^\w.-]+", "_", dataset).strip("._") or "images"
    taken = {path.name for path in root.iterdir()} if root.is_dir() else set()
    places = (name if k == 1 else f"{name}-{k}" for k in range(1, len(taken) + 2))
    return root / next(place for place in places if place not in taken)
