"""``adaptkit auto``: from images to the classifier that does best on them."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

from adaptkit.commands.as_json import json_alone
from adaptkit.commands.parsing.machine import machine_changes
from adaptkit.commands.requested import home_folder, load_files


def command(options: Namespace) -> int:
    """Try methods, choose one, and write it with a page."""
    from adaptkit.automatic.auto import auto
    from adaptkit.automatic.summary import summary_lines, summary_values

    load_files(options)
    home = home_folder(options)
    folder = options.out or free_folder(home / "auto", options.dataset)
    how = {"minutes": options.minutes, "backbone": options.backbone, "seed": int(options.seed), "home": home}
    how |= {
        "say": silent if options.quiet else tell_progress,
        "progress": not options.quiet,
        **machine_changes(options),
    }
    with json_alone(options.json) as answer:
        if options.classes:
            unlabelled(options, folder, answer, **how)
            return 0
        result = auto(options.dataset, out=folder, **how)
        if options.json:
            answer(summary_values(result))
        else:
            print("\n".join(summary_lines(result)))
    return 0


def unlabelled(options: Namespace, folder: Path, answer: Callable[[object], None], **how: Any) -> None:  # noqa: ANN401
    """Answer images without labels, as far as that can be."""
    from adaptkit.automatic.unlabelled import auto_unlabelled, names_asked

    place = options.dataset.removeprefix("folder:")
    result = auto_unlabelled(place, names_asked(options.classes), out=folder, **how)
    if options.json:
        told = {"images": len(result.paths), "classes": list(result.classnames), "methods": [*result.answers]}
        answer({**told, "notes": result.lines, "folder": folder})
        return
    print(f"{len(result.paths):,} images without labels, {len(result.classnames)} classes")
    print("\n".join([*result.lines, f"answers: {folder / 'labels.csv'}"]))
    print(f"next:\n  adaptkit predict {quote(str(folder / 'classifier'))} photos --out labels.csv  # zero-shot")


def silent(_: str) -> None:
    """Say nothing."""


def tell_progress(text: str) -> None:
    """A line for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def free_folder(root: Path, dataset: str) -> Path:
    """A folder named for a dataset, with a number where there is one already."""
    name = re.sub(r"[^\w.-]+", "_", dataset).strip("._") or "images"
    taken = {path.name for path in root.iterdir()} if root.is_dir() else set()
    places = (name if k == 1 else f"{name}-{k}" for k in range(1, len(taken) + 2))
    return root / next(place for place in places if place not in taken)
