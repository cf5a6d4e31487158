"""AUPIMO: how much of each anomaly is seen where next to nothing is seen in normal images.

Source: Bertoldo et al., AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low Tolerance,
arXiv:2401.01984.
"""

from __future__ import annotations

import numpy as np

BOUNDS = (1e-5, 1e-4)  # of the share of false positives
THRESHOLDS = 300_000


def aupimo(
    maps: np.ndarray, masks: np.ndarray, bounds: tuple[float, float] = BOUNDS, count: int = THRESHOLDS
) -> np.ndarray:
    """Area under each anomalous image's curve, ``(N,)``, between 0 and 1; nan for normal images.

    The curve is the share of an image's anomalous pixels at or above a threshold, against the logarithm of the share of
    false positives, which is the mean over normal images.

    Args:
        maps: ``(N, H, W)``.
        masks: ``(N, H, W)`` booleans; an image without a true one is normal.
        bounds: of the share of false positives; the nearest shares that occur stand for them.
        count: thresholds, evenly spaced between the least and the largest score of normal images.

    Raises:
        ValueError: where there is no normal or no anomalous image.

    >>> import numpy as np
    >>> from adaptkit.methods.evaluation.pimo import aupimo
    >>> masks = np.zeros((2, 100, 100), bool)
    >>> masks[1, :10] = True
    >>> aupimo(masks + np.random.default_rng(0).random(masks.shape) / 2, masks, bounds=(1e-3, 1e-2))
    array([nan,  1.])
    """
    normal = ~masks.any((1, 2))
    if normal.all() or not normal.any():
        raise ValueError(f"images must be normal and anomalous; got {normal.sum()} and {(~normal).sum()}")
    thresholds, false = shared_false(maps[normal], count)
    rows = between_shares(false, bounds)
    false = false[rows]
    out = np.full(len(maps), np.nan)
    for i in np.flatnonzero(~normal):
        seen = at_or_above(maps[i][masks[i]], thresholds[rows])
        area = np.trapezoid(seen[::-1], np.log(false[::-1])) / np.log(bounds[1] / bounds[0])
        out[i] = np.clip(area, 0.0, 1.0)
    return out


def shared_false(maps: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds between the scores of normal images, rising, and the share of these images above each, ``(K,)``."""
    thresholds = np.linspace(maps.min(), maps.max(), count, dtype=maps.dtype)
    return thresholds, np.mean([at_or_above(each.ravel(), thresholds) for each in maps], axis=0)


def at_or_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The share of scores that are no less than each threshold, ``(K,)``."""
    return 1 - np.searchsorted(np.sort(scores), thresholds) / len(scores)


def between_shares(false: np.ndarray, bounds: tuple[float, float]) -> slice:
    """The thresholds between two shares of false positives, which fall from threshold to threshold and are above 0."""
    above = false[: np.count_nonzero(false > 0)]
    last, first = (int(np.abs(above - bound).argmin()) for bound in bounds)
    return slice(first, max(first, last) + 1)
