"""Whether two methods differ: paired tests in place of bold numbers.

Seeds are few (three cannot reach 5 % in any rank test), so what is paired are the images of a test set, or datasets. An
image that several seeds answered is one pair, not several: its answers depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import erfc
from statistics import NormalDist, harmonic_mean, mean

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """One method against another.

    Attributes:
        reference: the other.
        difference: of the method over the reference, in the metric's unit.
        p: of no difference; two-sided, corrected by Holm's rule.
        test: that gave p.
        interval: of the difference, at 95 % or more, as its p is corrected: it leaves out 0 exactly where `differs`;
            ``None`` where only ranks were compared, or one image.
    """

    reference: str
    difference: float
    p: float
    test: str
    interval: tuple[float, float] | None = None

    @property
    def differs(self) -> bool:
        """Whether chance alone would rarely do this."""
        return self.p < LEVEL


@dataclass(frozen=True, eq=False)
class OverImages:
    """Two methods' answers to the same images.

    Attributes:
        sides: for each test set, which images each method got right on each seed, ``(seeds, N)`` booleans, or numbers
            where answers are not right or wrong. Of two test sets the harmonic means of the shares are compared.
    """

    sides: Sequence[tuple[np.ndarray, np.ndarray]]

    def p(self) -> float:
        """Of no difference, on other images: exact for one test set of right and wrong, else asymptotic."""
        if self._exact:
            one, two = self.sides[0]
            return sign_flip(one.sum(0, dtype=int) - two.sum(0, dtype=int))
        difference, error = self._difference()
        return erfc(abs(difference) / error / 2**0.5) if error else float(not difference)

    def verdict(self, reference: str, p: float, times: float = 1.0) -> Verdict:
        """The first method against the second; `p` is corrected, being `times` what it was."""
        difference, error = self._difference()
        several = min(answers.shape[1] for side in self.sides for answers in side) > 1
        span = agreeing(difference, error, p, times) if several else None
        return Verdict(reference, difference, p, self._test, span)

    @property
    def _test(self) -> str:
        tests = ("exact sign-flip test over images (McNemar's, where there is one seed)", "z test over images")
        return tests[not self._exact]

    @property
    def _exact(self) -> bool:
        return len(self.sides) == 1 and all(answers.dtype == bool for answers in self.sides[0])

    def _difference(self) -> tuple[float, float]:
        """Of the methods' (harmonic) means, and its standard error over images, by the delta method."""
        shares = [[side[i].mean(0) for side in self.sides] for i in (0, 1)]  # of the seeds, (N,) each
        means = [[float(share.mean()) for share in method] for method in shares]
        one, two = (
            [k * share for k, share in zip(slopes(m), s, strict=True)] for m, s in zip(means, shares, strict=True)
        )
        error = sum(self._square(a, b) for a, b in zip(one, two, strict=True)) ** 0.5
        return harmonic_mean(means[0]) - harmonic_mean(means[1]), float(error)

    def _square(self, one: np.ndarray, two: np.ndarray) -> float:
        """Of the error of a difference of means, ``(N,)`` each."""
        return spread_of_mean(one - two)


class Unpaired(OverImages):
    """Two methods' answers, each to images of its own."""

    @property
    def _test(self) -> str:
        return "z test over the images of each side, which are not the same (unpaired)"

    @property
    def _exact(self) -> bool:
        return False

    def _square(self, one: np.ndarray, two: np.ndarray) -> float:
        return spread_of_mean(one) + spread_of_mean(two)


def spread_of_mean(values: np.ndarray) -> float:
    """Squared standard error of a mean over images, ``(N,)``; 0 of one image."""
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0


@dataclass(frozen=True, eq=False)
class OverDatasets:
    """Two methods on several datasets.

    Attributes:
        differences: of the first over the second, one for each dataset, in the metric's unit.
    """

    differences: Sequence[float]

    def p(self) -> float:
        """Of no difference, on other datasets: Wilcoxon's signed ranks."""
        from scipy.stats import wilcoxon

        return float(wilcoxon(self.differences).pvalue) if any(self.differences) else 1.0

    def verdict(self, reference: str, p: float, times: float = 1.0) -> Verdict:
        """The first method against the second."""
        return Verdict(reference, mean(self.differences), p, "Wilcoxon's signed ranks over datasets")


Pair = Callable[[str, str], OverImages | OverDatasets | None]  # what tells one method from another, if anything does


def verdicts(
    pair: Pair,
    methods: Sequence[str],
    reference: str,
    *,
    chosen: bool,
) -> dict[str, Verdict]:
    """Each method against the reference; nothing when some pair cannot be compared.

    Args:
        pair: what tells one method from another.
        methods: labels.
        reference: one of them.
        chosen: the reference is the best of these results: being the best of many is no chance of one pair alone, so
            that the correction counts all pairs of methods, and not only those with the reference.
    """
    others = [m for m in methods if m != reference]
    pairs = [*((m, reference) for m in others), *(combinations(others, 2) if chosen else ())]
    evidence = [pair(*names) for names in pairs]
    known = [e for e in evidence if e]
    if len(known) < len(pairs):
        return {}
    each = holm_steps([e.p() for e in known])
    found = zip(others, known, each, strict=False)  # those with the reference come first
    return {m: e.verdict(reference, min(p, 1.0), times) for m, e, (p, times) in found}


def agreeing(difference: float, error: float, p: float, times: float) -> tuple[float, float]:
    """An interval of a difference that leaves out 0 exactly where p, corrected, is below the level.

    It is the usual one, ``difference ± z error``, with the z of level ``0.05 / times``, so that it is widened as p was
    multiplied. Where it and an exact p decide otherwise, as they may on few images, its end near 0 is that of the
    interval whose error is the one that p implies, ``difference (1 - z / z_p)``. Source: Miettinen, Estimability and
    Estimation in Case-Referent Studies, Am. J. Epidemiology 103(2), 1976 (test-based intervals).

    Args:
        difference: that was found.
        error: its standard error.
        p: corrected.
        times: how many times the uncorrected p.
    """
    z = -NormalDist().inv_cdf(LEVEL / times / 2)
    low, high = difference - z * error, difference + z * error
    if (low > 0 or high < 0) == (p < LEVEL):
        return low, high
    tail = p / times / 2
    implied = -NormalDist().inv_cdf(tail) if tail else z
    end = np.clip(difference * (1 - z / implied), -1.0, 1.0) if implied else 0.0  # exact p are those of shares
    if (end * difference > 0) != (p < LEVEL):  # a hair's breadth from the level
        end = np.nextafter(0.0, difference) if p < LEVEL else 0.0
    return (float(end), high) if difference > 0 else (low, float(end))


def sign_flip(differences: ArrayLike) -> float:
    """Exact p, two-sided, of whole-numbered paired differences ``(N,)`` whose signs are chance.

    With differences of -1, 0 and 1, as of two methods on one seed, this is McNemar's exact test.
    """
    values = np.asarray(differences)
    sizes = np.bincount(np.abs(values))
    total, seen = int(np.arange(len(sizes)) @ sizes), abs(int(values.sum()))
    if seen == 0:
        return 1.0
    length = 1 << (2 * total).bit_length()  # a power of two is fast, and every sum from -total to total has a place
    angle = 2 * np.pi * np.arange(length) / length
    wave = np.ones_like(angle)  # the characteristic function of the sum: a random sign of size j has cos(j t)
    for j, count in enumerate(sizes):
        wave *= np.cos(j * angle) ** int(count)
    chances = np.fft.fft(wave).real / length  # of each sum from 0 up, then of the negative ones
    return float(np.clip(2 * chances[seen : total + 1].sum(), 0.5**total, 1.0))


def slopes(shares: Sequence[float]) -> list[float]:
    """How much the harmonic mean of one or two shares grows with each of them."""
    if len(shares) == 1:
        return [1.0]
    one, two = shares
    return [2 * (other / (one + two)) ** 2 if other else 0.0 for other in (two, one)]


def decidable(datasets: int, pairs: int) -> bool:
    """Whether signed ranks over so few datasets could find any of so many pairs different."""
    return pairs * 2 * 0.5**datasets < LEVEL


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction: the k-th smallest of m is multiplied by m - k + 1, and none is below the one before it."""
    return [min(corrected, 1.0) for corrected, _ in holm_steps(p)]


def holm_steps(p: Sequence[float]) -> list[tuple[float, float]]:
    """Of each p, corrected and not cut at one, and how many times the uncorrected it is: from 1 to their number."""
    order = np.argsort(p)
    out, before = [(0.0, 1.0)] * len(p), 0.0
    for k, i in enumerate(order):
        before = max((len(p) - k) * p[i], before)
        out[i] = (before, before / p[i] if p[i] else float(len(p) - k))
    return [(float(corrected), float(times)) for corrected, times in out]
