"""Whether methods make the same errors: agreement of pairs beyond chance, and images that all answer wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adaptkit.report.errors.frames import data_frame

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Agreement:
    """Pairs of methods on the same images; all matrices are ``(M, M)``, and symmetric but for `one_right`.

    Attributes:
        methods: their names.
        kappa: Cohen's kappa of the answers: 1 where they are equal, 0 where they agree as by chance.
        both_right: share of images that both answer right.
        one_right: share of images that the row's method answers right and the column's wrong.
        both_wrong: share of images that both answer wrong.
        hard: images that all methods answer wrong, by their places.
        title: which answers these are: dataset, shots and seed.
    """

    methods: Sequence[str]
    kappa: np.ndarray
    both_right: np.ndarray
    one_right: np.ndarray
    both_wrong: np.ndarray
    hard: np.ndarray
    title: str = ""

    def frame(self) -> DataFrame:
        """Kappa of each pair as a pandas table."""
        names = list(self.methods)
        return data_frame(self.kappa, index=names, columns=names)


def agreement(
    predicted: Mapping[str, Sequence[int] | np.ndarray], labels: Sequence[int] | np.ndarray, title: str = ""
) -> Agreement:
    """How far the answers of methods to the same N images agree.

    Source of kappa: Cohen, A Coefficient of Agreement for Nominal Scales, 1960.

    Args:
        predicted: class ids ``(N,)`` by method.
        labels: class ids ``(N,)``.
        title: which answers these are.

    Raises:
        ValueError: without methods or images, or when these are not as many.

    >>> agreement({"one": [0, 1, 1, 0], "two": [0, 1, 0, 1]}, [0, 1, 1, 1]).kappa.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    true = np.asarray(labels, int)
    if not predicted or not len(true) or any(len(each) != len(true) for each in predicted.values()):
        sizes = [len(each) for each in predicted.values()]
        raise ValueError(f"methods must answer the same images, one at least; got {sizes} answers, {len(true)} labels")
    answers = np.stack([np.asarray(each, int) for each in predicted.values()])  # (M, N)
    ids, places = np.unique(answers, return_inverse=True)
    coded = places.reshape(answers.shape)
    often = np.stack([np.bincount(row, minlength=len(ids)) for row in coded]) / len(true)  # (M, C)
    equal = np.stack([(coded == row).mean(1) for row in coded])
    chance = often @ often.T
    with np.errstate(invalid="ignore", divide="ignore"):  # two methods that answer one class alone agree for sure
        kappa = np.where(chance < 1, (equal - chance) / (1 - chance), 1.0)
    right = answers == true
    hit, miss = right.astype(float), (~right).astype(float)
    both, one, none = (pairs / len(true) for pairs in (hit @ hit.T, hit @ miss.T, miss @ miss.T))
    return Agreement(list(predicted), kappa, both, one, none, np.flatnonzero(~right.any(0)), title)
