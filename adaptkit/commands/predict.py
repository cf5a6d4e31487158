"""``adaptkit predict``: a saved classifier's labels for pictures, as CSV or lines of JSON."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit.commands.parsing.machine import machine_changes
from adaptkit.commands.requested import home_folder, load_files

if TYPE_CHECKING:
    from torch import Tensor

    from adaptkit.commands.map_files import MapFiles
    from adaptkit.saving.classifier import Classifier

TOGETHER = 1024  # pictures that are looked at, labelled and written together


def command(options: Namespace) -> int:
    """Label pictures; the exit code is 1 when some could not be read."""
    from adaptkit.commands.map_files import MapFiles
    from adaptkit.commands.rankings import rankings
    from adaptkit.io.files import ensure_file
    from adaptkit.io.pictures import counted
    from adaptkit.io.safe import csv_text
    from adaptkit.saving.classifier import load_classifier
    from adaptkit.saving.pictures import find_pictures

    load_files(options)
    if options.out:
        ensure_file(options.out)
    paths, rest = find_pictures(options.images)
    if rest:
        tell(f"read {len(paths):,} files; left out {counted(rest)}, the first {str(rest[0])!r}")
    machine: dict[str, Any] = machine_changes(options)
    classifier = load_classifier(options.model, backbone=options.backbone, home=home_folder(options), **machine)
    maps = MapFiles(options.maps, classifier) if options.maps else None
    names = classifier.classnames
    if not 1 <= options.top <= len(names):
        what = "items of the gallery" if classifier.searches else "classes"
        raise ValueError(f"--top must be from 1 to {len(names)}, the number of {what}; got {options.top}")
    if options.top > 1 and (classifier.method.output == "score" or classifier.method.evaluation.kind == "maps"):
        raise ValueError(f"--top must be left out where a picture is answered by one score; got {options.top}")
    if classifier.searches:
        write_texts(options.out, rankings(classifier, paths, options.top, options.json))
        return 0
    pictures = Decodable(paths, len(paths) if classifier.method.scope == "set" else TOGETHER)
    rows = label_rows(classifier, pictures, options.top, maps)
    write_texts(options.out, json_lines(rows) if options.json else map(csv_text, rows))
    return 0 if pictures.found == len(paths) else 1


class Decodable:
    """Those pictures that can be decoded, some at a time; the others are named when it comes to them.

    They are decoded before the towers see any of these: one bad file costs no work.

    Attributes:
        found: how many there were so far.
    """

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths, self.size, self.found = paths, size, 0

    def __iter__(self) -> Iterator[list[Path]]:
        from adaptkit.io.pictures import decode

        wrong: list[str] = []
        for start in range(0, len(self.paths), self.size):
            sound = list[Path]()
            for path in self.paths[start : start + self.size]:
                try:
                    decode(path, repr(str(path)))
                    sound.append(path)
                except ValueError as error:
                    wrong.append(str(error))
            self.found += len(sound)
            if self.found:
                for why in wrong:
                    tell(f"left out: {why}")
                wrong = []
            if sound:
                yield sound
        if not self.found:
            raise ValueError(
                f"images must be readable; got {len(self.paths)}, of which none is; {'; '.join(wrong[:1])}"
            )


def label_rows(
    classifier: Classifier, pictures: Iterable[list[Path]], top: int, maps: MapFiles | None = None
) -> Iterator[list[list[str]]]:
    """Rows of the table, some at a time, with its head before the first of them; maps are written beside it."""
    waiting, head = list[Path](), False

    def noted() -> Iterator[list[Path]]:
        for paths in pictures:
            waiting.extend(paths)
            yield paths

    try:
        whole = ((slice(0, len(paths)), classifier(paths)) for paths in noted())
        for rows, answers in whole if classifier.method.scope == "set" else classifier.batches(noted()):
            columns, cells = answer_cells(answers, classifier.classnames, top)
            count = rows.stop - rows.start
            own, waiting[:count] = waiting[:count], []
            if maps:
                maps.write(answers, own)
            yield [columns] * (not head) + [[str(path), *row] for path, row in zip(own, cells, strict=True)]
            head = True
    except OSError as error:  # of reading, which must not pass for one of writing the table
        raise ValueError(f"images must be readable to the end; got {error}") from error


def answer_cells(answers: Tensor, names: Sequence[str], top: int) -> tuple[list[str], list[list[str]]]:
    """The head of the table, and of each picture the score, or the likeliest labels with their probabilities."""
    if answers.dim() > 2:
        from adaptkit.methods.evaluation.maps import image_scores

        answers = image_scores(answers)
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


def write_texts(out: Path | None, texts: Iterable[str]) -> None:
    """Text, as it comes, to a file that is written whole or not at all, or to where printing goes."""
    from adaptkit.io.files import atomic_write

    if out is not None:
        atomic_write(out, (text.encode() for text in texts))
        return
    for text in texts:
        print(text, end="")


def json_lines(blocks: Iterable[list[list[str]]]) -> Iterator[str]:
    """Rows as lines of JSON: the path, and the score or the labels, the likeliest first; the head is left out."""
    from adaptkit.io.jsons import strict_json

    for number, rows in enumerate(blocks):
        found = list[dict[str, object]]()
        for path, *cells in rows[number == 0 :]:
            if len(cells) == 1:
                found.append({"path": path, "score": float(cells[0])})
            else:
                pairs = zip(cells[::2], map(float, cells[1::2]), strict=True)
                found.append({"path": path, "labels": [{"label": name, "probability": p} for name, p in pairs]})
        yield "".join(f"{strict_json(one, indent=None)}\n" for one in found)
