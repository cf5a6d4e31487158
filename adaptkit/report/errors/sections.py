"""Sections of a page about errors, as HTML from plain arrays: they need no script, no network and no library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adaptkit.io.safe import in_html
from adaptkit.report.errors.agreement import Agreement
from adaptkit.report.errors.counts import (
    Numbers,
    class_scores,
    confusion_counts,
    macro_f1,
    most_confused,
    reliability,
)
from adaptkit.report.errors.curves import reliability_svg

MATRIX_CLASSES = 40  # of more, pairs say what a matrix would
NUMBERED = 25  # classes whose counts fit into the cells of a matrix
CLASS_ROWS = 200  # of a table of classes, those with the lowest F1
DEEP = 0.55  # a share from which on the text on it is white


def style() -> str:
    """The rules that the sections are shown by, for a page's ``<style>``."""
    return (Path(__file__).parent / "sections.css").read_text(encoding="utf-8")


def answers_sections(labels: Numbers, probabilities: np.ndarray, names: Sequence[str]) -> str:
    """Everything that the probabilities of classes tell: confusion, reliability, classes.

    Args:
        labels: class ids ``(N,)``.
        probabilities: ``(N, C)``, rows that sum to 1.
        names: of the C classes.

    >>> shown = answers_sections([0, 1], np.array([[0.9, 0.1], [0.6, 0.4]]), ["cat", "dog"])
    >>> [title in shown for title in ("Confusion", "Reliability", "By class")]
    [True, True, True]
    """
    told = np.asarray(probabilities, float)
    best, sure = told.argmax(1), told.max(1)
    right = best == np.asarray(labels)
    parts = (
        confusion_section(labels, best, names),
        reliability_section(sure, right),
        classes_section(labels, best, names),
    )
    return "".join(parts)


def confusion_section(labels: Numbers, predicted: Numbers, names: Sequence[str]) -> str:
    """Which classes are taken for which: a matrix or, of many classes, the pairs that are confused most often.

    Args:
        labels: class ids ``(N,)``.
        predicted: class ids ``(N,)``.
        names: of all classes.
    """
    counts = confusion_counts(labels, predicted, len(names))
    there = np.flatnonzero(counts.sum(0) + counts.sum(1))  # a set may have images of some classes only
    if not len(there):
        return section("Confusion", "no labelled images")
    if len(there) > MATRIX_CLASSES:
        return pairs_section(counts, names)
    shown = counts[np.ix_(there, there)]
    some = [names[i] for i in there.tolist()]
    rows = [matrix_row(i, shown, some) for i in range(len(some))]
    what = (
        '<span class="key hit"></span>right <span class="key miss"></span>wrong; numbers are images, '
        "shades the share of the row's images"
    )
    return section("Confusion", what, matrix("Confusion matrix", "true \\ answered", some, rows))


def matrix_row(i: int, counts: np.ndarray, names: Sequence[str]) -> str:
    """One class's row of a confusion matrix; cells of images that there are none of are empty."""
    size, cells = int(counts[i].sum()), []
    for j, count in enumerate(counts[i].tolist()):
        if not count:
            cells.append("<td></td>")
            continue
        share = count / size
        kinds = " ".join(["hit"] * (i == j) + ["deep"] * (share > DEEP))
        said = f"{count} of {size} answered {in_html(names[j])}"
        shown = str(count) if len(names) <= NUMBERED else ""
        label = "" if shown else f' aria-label="{count}"'
        shade = share if i == j else share**0.6  # few errors of a class must be seen, too
        cells.append(f'<td class="{kinds}" style="--s:{shade:.2f}" title="{said}"{label}>{shown}</td>')
    return f'<tr><th scope="row" title="{in_html(names[i])}">{in_html(names[i])}</th>{"".join(cells)}</tr>'


def pairs_section(counts: np.ndarray, names: Sequence[str]) -> str:
    """The pairs of classes that are confused most often."""
    found = most_confused(counts, names)
    body = [[p.label, p.predicted, f"{p.count:,}", f"{100 * p.share:.1f}"] for p in found]
    if not body:
        return section("Confusion", f"{len(names):,} classes, and no image of one was taken for another")
    what = f"the {len(found)} pairs of {len(names):,} classes that are confused most often"
    return section(
        "Confusion", what, data_table(["true", "answered", "images", "% of class"], body, 2, "Confused pairs")
    )


def reliability_section(confidence: Numbers, right: Numbers) -> str:
    """How often answers of a given confidence are right, as a diagram.

    Args:
        confidence: the probability of the answer, ``(N,)``.
        right: whether it is right, ``(N,)``.
    """
    found = reliability(confidence, right)
    if not found.counts.sum():
        return section("Reliability", "no labelled images")
    sure, hit = float(np.mean(confidence)), float(np.mean(np.asarray(right, float)))
    said = f"mean confidence {100 * sure:.1f} %, accuracy {100 * hit:.1f} %, expected calibration error {found.ece:.3f}"
    return section("Reliability", said, reliability_svg(found))


def classes_section(labels: Numbers, predicted: Numbers, names: Sequence[str]) -> str:
    """Precision, recall and F1 of each class, the lowest F1 first.

    Args:
        labels: class ids ``(N,)``.
        predicted: class ids ``(N,)``.
        names: of all classes.
    """
    counts = confusion_counts(labels, predicted, len(names))
    found = [scores for scores in class_scores(counts, names) if scores.f1 is not None]
    mean = macro_f1(counts)
    if mean is None:
        return section("By class", "no labelled images")
    found.sort(key=lambda scores: scores.f1 or 0.0)
    cut = f"; the {CLASS_ROWS} lowest of {len(found):,} classes" * (len(found) > CLASS_ROWS)
    body = [
        [s.name, f"{s.count:,}", percentage(s.precision), percentage(s.recall), percentage(s.f1)]
        for s in found[:CLASS_ROWS]
    ]
    said = f"%, the lowest F1 first; macro-F1 {100 * mean:.1f}{cut}"
    head = ["class", "images", "precision", "recall", "F1"]
    return section("By class", said, data_table(head, body, 1, "Scores by class"))


def agreement_section(found: Agreement, names: Sequence[str]) -> str:
    """Whether methods make the same errors, for each pair of them.

    Args:
        found: of the methods.
        names: as they are shown.
    """
    if len(names) < 2:
        return ""
    rows = [agreement_row(i, found, names) for i in range(len(names))]
    about = f"{in_html(found.title)}: " * bool(found.title)
    said = (
        f"{about}Cohen's kappa of answers, in hundredths: 100 where two methods answer the same, 0 where they agree as "
        f"by chance; all are wrong about {len(found.hard):,} images"
    )
    return section("Agreement between methods", said, matrix("Agreement", "", names, rows))


def agreement_row(i: int, found: Agreement, names: Sequence[str]) -> str:
    """One method's agreement with the others."""
    cells = []
    for j, value in enumerate(found.kappa[i].tolist()):
        shares = [100 * each[i, j] for each in (found.both_right, found.one_right, found.one_right.T, found.both_wrong)]
        one, two = in_html(names[i]), in_html(names[j])
        said = "both right {:.1f} %, only {one} {:.1f} %, only {two} {:.1f} %, both wrong {:.1f} %"
        kinds = "hit" + " deep" * (value > DEEP)
        told = said.format(*shares, one=one, two=two)
        cells.append(f'<td class="{kinds}" style="--s:{max(0.0, value):.2f}" title="{told}">{100 * value:.0f}</td>')
    return f'<tr><th scope="row" title="{in_html(names[i])}">{in_html(names[i])}</th>{"".join(cells)}</tr>'


def section(title: str, said: str, body: str = "") -> str:
    """A heading, a line and what is below it; `said` and `body` are HTML."""
    return f'<section class="errors"><h3>{in_html(title)}</h3><p>{said}</p>{body}</section>'


def matrix(said: str, corner: str, names: Sequence[str], rows: Sequence[str]) -> str:
    """Rows of cells, as HTML, below the names of the columns."""
    heads = "".join(f'<th scope="col" title="{in_html(name)}"><span>{in_html(name)}</span></th>' for name in names)
    head = f'<thead><tr><th scope="col">{in_html(corner)}</th>{heads}</tr></thead>'
    return scroll(f'<table class="matrix">{head}<tbody>{"".join(rows)}</tbody></table>', said)


def data_table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int, said: str) -> str:
    """Rows of text as a table whose first columns, so many, are names."""
    kinds = [' class="text"' if place < texts else "" for place in range(len(head))]
    first = "".join(f'<th scope="col"{kind}>{in_html(cell)}</th>' for cell, kind in zip(head, kinds, strict=True))
    body = "".join(
        "<tr>"
        + f'<th scope="row" title="{in_html(row[0])}">{in_html(row[0])}</th>'
        + "".join(f'<td class="text" title="{in_html(cell)}">{in_html(cell)}</td>' for cell in row[1:texts])
        + "".join(f"<td>{in_html(cell)}</td>" for cell in row[max(1, texts) :])
        + "</tr>"
        for row in rows
    )
    return scroll(f"<table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table>", said)


def scroll(inner: str, said: str) -> str:
    """What may be wider than the page: it can be reached, and moved, by the keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{in_html(said)}">{inner}</div>'


def percentage(share: float | None) -> str:
    """A share in percent; "-" where there is none."""
    return "-" if share is None else f"{100 * share:.1f}"
