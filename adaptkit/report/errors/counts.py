"""Counts of answers, from plain arrays: a confusion matrix, scores of each class, how far to believe confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Numbers = Sequence[int] | Sequence[float] | np.ndarray

BINS = 15  # of confidences, as in the metric ``ece``
NO_LABEL = -1  # in place of a label


@dataclass(frozen=True)
class ClassScores:
    """How one class was answered.

    Attributes:
        name: of the class.
        count: its images.
        answered: images that were taken for it.
        precision: share of those that are of it; ``None`` where none was taken for it.
        recall: share of its images that were answered right; ``None`` where it has none.
        f1: their harmonic mean, between 0 and 1; ``None`` where it has no image and none was taken for it.
    """

    name: str
    count: int
    answered: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Confused:
    """Images of one class that were taken for another.

    Attributes:
        label: the true class.
        predicted: the other.
        count: such images.
        share: of all images of the true class.
    """

    label: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Reliability:
    """How often answers of a given confidence are right.

    Attributes:
        edges: of the bins, ``(B + 1,)``, from 0 to 1.
        counts: answers in each bin, ``(B,)``.
        confidence: their mean confidence, ``(B,)``; not a number where there are none.
        accuracy: the share of them that is right, ``(B,)``; not a number where there are none.
        ece: the expected calibration error, between 0 and 1; not a number without answers.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float


def confusion_counts(labels: Numbers, predicted: Numbers, classes: int) -> np.ndarray:
    """How many images of each class, in rows, were taken for each, in columns, ``(C, C)``; unknown labels are left out.

    Raises:
        ValueError: when both are not of one length, or a number is that of no class.

    >>> confusion_counts([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    true, told = np.asarray(labels, int).reshape(-1), np.asarray(predicted, int).reshape(-1)
    if len(true) != len(told):
        raise ValueError(f"labels and answers must be as many; got {len(true)} and {len(told)}")
    known = true != NO_LABEL
    true, told = true[known], told[known]
    for what, some in (("labels", true), ("answers", told)):
        if len(odd := some[(some < 0) | (some >= classes)]):
            raise ValueError(f"{what} must be numbers of classes, from 0 to {classes - 1}; got {odd[0]}")
    return np.bincount(true * classes + told, minlength=classes**2).reshape(classes, classes)


def class_scores(counts: np.ndarray, names: Sequence[str]) -> list[ClassScores]:
    """Precision, recall and F1 of each class, from a confusion matrix ``(C, C)``.

    >>> class_scores(confusion_counts([0, 0, 1], [0, 1, 1], 2), ["cat", "dog"])[1].precision
    0.5
    """
    rows, columns = counts.sum(1).tolist(), counts.sum(0).tolist()

    def share(part: float, whole: float) -> float | None:
        return part / whole if whole else None

    return [
        ClassScores(name, n, m, share(hit, m), share(hit, n), share(2 * hit, n + m))
        for name, n, m, hit in zip(names, rows, columns, counts.diagonal().tolist(), strict=True)
    ]


def macro_f1(counts: np.ndarray) -> float | None:
    """Mean F1 over the classes that have an image or were answered, between 0 and 1; ``None`` without images."""
    found = [f1 for scores in class_scores(counts, [""] * len(counts)) if (f1 := scores.f1) is not None]
    return sum(found) / len(found) if found else None


def most_confused(counts: np.ndarray, names: Sequence[str], most: int = 20) -> list[Confused]:
    """The pairs of classes that are confused most often, the most frequent first, else in the classes' order."""
    wrong = counts - np.diag(counts.diagonal())
    sizes, order = counts.sum(1), np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(at), len(counts)) for at in order]
    return [
        Confused(names[i], names[j], int(wrong[i, j]), float(wrong[i, j] / sizes[i])) for i, j in pairs if wrong[i, j]
    ]


def reliability(confidence: Numbers, right: Numbers, bins: int = BINS) -> Reliability:
    """How often answers are right, by the probability ``(N,)`` that was given to them.

    The bins are those of the metric ``ece``. There certainty itself, exactly 1, is a bin of its own; here it is shown
    with the last one.

    >>> float(reliability([0.9, 0.9], [True, False]).ece)
    0.4
    """
    sure, hit = np.asarray(confidence, float).reshape(-1), np.asarray(right, float).reshape(-1)
    if len(sure) != len(hit):
        raise ValueError(f"confidences and answers must be as many; got {len(sure)} and {len(hit)}")
    edges = np.linspace(0, 1, bins + 1)
    fine = np.clip(np.digitize(sure, edges.astype(np.float32)) - 1, 0, bins)
    gaps = abs(np.bincount(fine, sure - hit, bins + 1)).sum()
    coarse = np.minimum(fine, bins - 1)
    counts = np.bincount(coarse, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean, accuracy = (np.bincount(coarse, values, bins) / counts for values in (sure, hit))
    return Reliability(edges, counts, mean, accuracy, float(gaps / len(sure)) if len(sure) else float("nan"))
