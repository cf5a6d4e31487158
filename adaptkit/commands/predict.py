"""``adaptkit predict``: a saved classifier's labels for pictures, as CSV."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from adaptkit.commands.requested import home_folder, load_files


def command(options: Namespace) -> int:
    """Label pictures; the exit code is 1 when some could not be read."""
    from adaptkit.io.files import ensure_writable
    from adaptkit.io.pictures import counted
    from adaptkit.saving.classifier import load_classifier
    from adaptkit.saving.pictures import find_pictures

    load_files(options)
    if options.out:
        ensure_writable(options.out.parent)
    paths, rest = find_pictures(options.images)
    if rest:
        tell(f"read {len(paths):,} files; left out {counted(rest)}, the first {str(rest[0])!r}")
    classifier = load_classifier(options.model, backbone=options.backbone, home=home_folder(options))
    names = classifier.classnames
    if not 1 <= options.top <= len(names):
        raise ValueError(f"--top must be from 1 to {len(names)}, the number of classes; got {options.top}")
    readable = sound(paths)
    answers = classifier(readable)
    rows: list[list[str]]
    if answers.dim() == 1:
        head, rows = ["path", "score"], [[f"{score:.6f}"] for score in answers.tolist()]
    else:
        best = answers.double().softmax(-1).topk(options.top)
        ranks = [""] + [f"_{rank}" for rank in range(2, options.top + 1)]
        head = ["path", *(f"{column}{rank}" for rank in ranks for column in ("label", "probability"))]
        rows = [
            [cell for c, p in zip(classes, shares, strict=True) for cell in (names[c], f"{p:.6f}")]
            for classes, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
    write_csv(options.out, [head, *([str(path), *row] for path, row in zip(readable, rows, strict=True))])
    return 0 if len(readable) == len(paths) else 1


def sound(paths: list[Path]) -> list[Path]:
    """The pictures that can be read, before the towers start: one bad file in a thousand costs no work."""
    from adaptkit.io.pictures import decode

    readable = []
    for path in paths:
        try:
            decode(path, repr(str(path)))
            readable.append(path)
        except ValueError as error:
            tell(f"left out: {error}")
    if not readable:
        raise ValueError(f"images must be readable; got {len(paths)}, of which none is")
    return readable


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
