"""Whether two methods differ: paired tests in place of bold numbers.

Seeds are few (with three, no rank test can reach 5 %), so tests are paired over images of a test set, or datasets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Verdict:
    """One comparison of two methods.

    Attributes:
        one: a method.
        two: another.
        difference: of `one` over `two`, in the unit of what was compared.
        p: of no difference; two-sided, corrected for the number of comparisons by Holm's rule.
        over: what was paired: images or datasets, and how many.
    """

    one: str
    two: str
    difference: float
    p: float
    over: str

    def __str__(self) -> str:
        words = "differs from" if self.p < 0.05 else "is not distinguishable from"
        return f"{self.one} {words} {self.two}: {self.difference:+.2f} points, p = {self.p:.2g} over {self.over}"


def mcnemar(one: ArrayLike, two: ArrayLike) -> float:
    """Exact McNemar test of two methods' right answers on the same images, ``(N,)`` booleans each: p, two-sided.

    Raises:
        ValueError: when the answers are not of the same images.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(one, bool), np.asarray(two, bool)
    if a.shape != b.shape:
        raise ValueError(f"answers must be of the same images; got {a.shape} and {b.shape}")
    only_one, only_two = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_one, only_one + only_two).pvalue) if only_one + only_two else 1.0


def bootstrap(differences: ArrayLike, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean of paired differences ``(N,)``, by resampling the pairs."""
    values = np.asarray(differences, float)
    counts = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), size=draws)
    low, high = np.quantile(counts @ values / len(values), (0.025, 0.975))
    return float(low), float(high)


def over_images(right: Mapping[str, ArrayLike]) -> list[Verdict]:
    """Every pair of methods on one test set, from which images each got right, ``(N,)`` booleans by method.

    Several seeds are laid end to end, in one order for all methods; their images repeat, so p is a little too small.
    """
    pairs = [(a, b) for i, a in enumerate(right) for b in list(right)[i + 1 :]]
    raw = [mcnemar(right[a], right[b]) for a, b in pairs]
    count = len(np.asarray(next(iter(right.values())))) if right else 0
    gaps = [
        100 * (float(np.mean(np.asarray(right[a], bool))) - float(np.mean(np.asarray(right[b], bool))))
        for a, b in pairs
    ]
    return [Verdict(a, b, gap, p, f"{count} images") for (a, b), gap, p in zip(pairs, gaps, holm(raw), strict=True)]


def over_datasets(scores: Mapping[str, Sequence[float]]) -> list[Verdict]:
    """Every pair of methods over datasets, from one score per dataset, percent: Wilcoxon's signed ranks.

    Raises:
        ValueError: with fewer than six datasets, with which no result could reach 5 %.
    """
    from scipy.stats import wilcoxon

    count = len(next(iter(scores.values()))) if scores else 0
    if count < 6:
        raise ValueError(f"a rank test must have at least 6 datasets, or no p is below 0.05; got {count}")
    pairs = [(a, b) for i, a in enumerate(scores) for b in list(scores)[i + 1 :]]
    gaps = [np.subtract(scores[a], scores[b]) for a, b in pairs]
    raw = [float(wilcoxon(gap).pvalue) if np.any(gap) else 1.0 for gap in gaps]
    return [
        Verdict(a, b, float(np.mean(gap)), p, f"{count} datasets")
        for (a, b), gap, p in zip(pairs, gaps, holm(raw), strict=True)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction: the k-th smallest of m is multiplied by m - k, and none may be smaller than the one before."""
    order = np.argsort(p)
    steps = np.maximum.accumulate([(len(p) - k) * p[i] for k, i in enumerate(order)]) if len(p) else np.array([])
    out = np.empty(len(p))
    out[order] = np.minimum(steps, 1.0)
    return [float(v) for v in out]
