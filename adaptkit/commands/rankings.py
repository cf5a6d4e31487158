"""Rankings of a saved method that searches a gallery, as CSV or lines of JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptkit.io.jsons import strict_json
from adaptkit.io.paths import read_file
from adaptkit.io.safe import csv_text

if TYPE_CHECKING:
    from adaptkit.saving.classifier import Classifier


def rankings(classifier: Classifier, paths: Sequence[Path], top: int, as_json: bool) -> Iterator[str]:
    """For each line of some files of text its items, the likeliest first, with their scores.

    Raises:
        ValueError: for a file that is no text, or files without a line.
    """
    queries = [line for path in paths for line in lines_of(path)]
    if not queries:
        raise ValueError(f"queries must be lines of text; got none in {', '.join(map(str, paths))}")
    best = classifier(queries).topk(top)
    rows = [
        [(classifier.classnames[i], score) for i, score in zip(items, scores, strict=True)]
        for items, scores in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    if as_json:
        for query, found in zip(queries, rows, strict=True):
            items = [{"item": name, "score": score} for name, score in found]
            yield f"{strict_json({'query': query, 'items': items}, indent=None)}\n"
        return
    ranks = [""] + [f"_{rank}" for rank in range(2, top + 1)]
    head = ["query", *(f"{column}{rank}" for rank in ranks for column in ("item", "score"))]
    cells = [
        [query, *(cell for name, score in found for cell in (name, f"{score:.6f}"))]
        for query, found in zip(queries, rows, strict=True)
    ]
    yield csv_text([head, *cells])


def lines_of(path: Path) -> list[str]:
    """The lines of a file of text that say something."""
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"queries must be text, one a line; got {str(path)!r}, which is none") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
