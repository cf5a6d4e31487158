"""``adaptkit predict``: a saved classifier's labels for pictures, as CSV."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptkit.commands.requested import home_folder, load_files

if TYPE_CHECKING:
    from torch import Tensor


def command(options: Namespace) -> int:
    """Label pictures; the exit code is 1 when some could not be read."""
    from adaptkit.io.files import ensure_file
    from adaptkit.io.pictures import counted
    from adaptkit.saving.classifier import load_classifier
    from adaptkit.saving.pictures import find_pictures

    load_files(options)
    if options.out:
        ensure_file(options.out)
    paths, rest = find_pictures(options.images)
    if rest:
        tell(f"read {len(paths):,} files; left out {counted(rest)}, the first {str(rest[0])!r}")
    classifier = load_classifier(options.model, backbone=options.backbone, home=home_folder(options))
    names = classifier.classnames
    if not 1 <= options.top <= len(names):
        raise ValueError(f"--top must be from 1 to {len(names)}, the number of classes; got {options.top}")
    readable = sound_pictures(paths)
    head, rows = answer_cells(classifier(readable), names, options.top)
    write_csv(options.out, [head, *([str(path), *row] for path, row in zip(readable, rows, strict=True))])
    return 0 if len(readable) == len(paths) else 1


def sound_pictures(paths: Sequence[Path]) -> list[Path]:
    """Those that can be decoded; the others are named. Before the towers start: one bad file costs no work."""
    from adaptkit.io.pictures import decode

    found, wrong = [], []
    for path in paths:
        try:
            decode(path, repr(str(path)))
            found.append(path)
        except ValueError as error:
            wrong.append(str(error))
    if not found:
        raise ValueError(f"images must be readable; got {len(paths)}, of which none is; {'; '.join(wrong[:1])}")
    for why in wrong:
        tell(f"left out: {why}")
    return found


def answer_cells(answers: Tensor, names: Sequence[str], top: int) -> tuple[list[str], list[list[str]]]:
    """The head of the table, and of each picture the score, or the likeliest labels with their probabilities."""
    if answers.dim() == 1:
        return ["path", "score"], [[f"{score:.6f}"] for score in answers.tolist()]
    best = answers.double().softmax(-1).topk(top)
    ranks = [""] + [f"_{rank}" for rank in range(2, top + 1)]
    head = ["path", *(f"{column}{rank}" for rank in ranks for column in ("label", "probability"))]
    return head, [
        [cell for c, p in zip(classes, shares, strict=True) for cell in (names[c], f"{p:.6f}")]
        for classes, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def tell(text: str) -> None:
    """A line for whoever looks at the error output."""
    from adaptkit.io.safe import in_lines

    print(f"adaptkit: {in_lines(text)}", file=sys.stderr)


def write_csv(out: Path | None, rows: list[list[str]]) -> None:
    """Rows as CSV, to a file or to where printing goes."""
    from adaptkit.io.files import atomic_write
    from adaptkit.io.safe import csv_text

    text = csv_text(rows)
    if out is None:
        print(text, end="")
        return
    atomic_write(out, text.encode())
