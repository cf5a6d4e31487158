"""Which method is chosen, how good it is expected to be, and how sure that is.

The accuracy of the best of many is too good by its own choice. Bootstrap bias-corrected cross-validation (Tsamardinos
et al., Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation, Machine Learning 107,
2018) draws the images anew, chooses on those drawn as the choice was made, and looks at the others.

Methods learned from overlapping images, so their errors depend on each other: images count as fewer, by the factor of
Nadeau and Bengio (Inference for the generalization error, Machine Learning 52, 2003) for one k-fold cross-validation,
``1 + k / (k - 1)``; what learns from no image, or from none of one part, counts them whole. The interval is Wilson's
for that many images: its lower end is that of the corrected accuracy, its upper end that of the accuracy as it was
seen. The correction takes too much where methods hardly differ, and what is saved learns from more images than any fold
did, so the truth may well lie above what is corrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from adaptkit.automatic.contender import Contender
from adaptkit.methods.calibration import fitted_heat

DRAWS = 1000  # of the bootstrap
DRAWN_AT_ONCE = 100  # draws that are held at once
NORMAL = 1.96  # of 95 %
SAME = 1e-9  # a difference of accuracies that is rounding


@dataclass(frozen=True)
class Expected:
    """How good the chosen method is expected to be on images that come as the labelled ones do.

    Attributes:
        accuracy: between 0 and 1, corrected for the choice.
        low: lower end of the 95 % interval.
        high: its upper end.
        seen: accuracy of the chosen method in the cross-validation, before the correction.
        images: that were answered.
        apart: of these, how many show different things.
        folds: of the cross-validation; 1 where one part of the images was held back, once.
        repeats: of it, for the chosen method.
    """

    accuracy: float
    low: float
    high: float
    seen: float
    images: int
    apart: int
    folds: int
    repeats: int

    def text(self) -> str:
        """In words, e.g. ``"81.2 % (74.0 to 86.7)"``."""
        return f"{100 * self.accuracy:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


def choice(entries: Sequence[Contender], labels: Tensor) -> Choice:
    """What the choice between methods looks at.

    Args:
        entries: that answered every tested image.
        labels: ``(N,)`` of these images.
    """
    right = torch.stack([torch.stack(e.right).double().mean(0) for e in entries]).numpy()  # (M, N)
    sure = []
    for entry in entries:
        logits: Tensor = entry.logits  # type: ignore[assignment]
        sure.append(cross_entropy(logits.double() / fitted_heat(logits, labels), labels, reduction="none"))
    return Choice(right, torch.stack(sure).numpy())


@dataclass(frozen=True, eq=False)
class Choice:
    """Answers of M methods to N images, none of which a method learned from.

    Attributes:
        right: ``(M, N)`` shares of right answers over repeats.
        loss: ``(M, N)`` negative log-likelihoods at each method's own best temperature, nats.
    """

    right: np.ndarray
    loss: np.ndarray

    def best(self, accuracy: np.ndarray, loss: np.ndarray) -> np.ndarray:
        """The method chosen by accuracies and losses ``(B, M)``: ``(B,)``. Of equal ones that of least loss."""
        top = accuracy.max(1, keepdims=True)
        return np.where(accuracy >= top - SAME, loss, np.inf).argmin(1)

    def chosen(self) -> int:
        """The method that is chosen."""
        return int(self.best(self.right.mean(1)[None], self.loss.mean(1)[None])[0])

    def corrected(self, groups: np.ndarray, seed: int) -> float:
        """Accuracy of whatever is chosen, on images that were not chosen by; see the module.

        Args:
            groups: ``(N,)``, the same number for images that show the same: they are drawn together.
            seed: of the draws.
        """
        _, group = np.unique(groups, return_inverse=True)
        count, draw = int(group.max()) + 1, np.random.default_rng(seed)
        size = np.bincount(group, minlength=count).astype(float)  # (G,)
        right, loss = (
            np.stack([np.bincount(group, row, count) for row in rows]) for rows in (self.right, self.loss)
        )  # (M, G) sums
        told = list[float]()
        for _ in range(0, DRAWS, DRAWN_AT_ONCE):
            times = draw.multinomial(count, np.full(count, 1 / count), DRAWN_AT_ONCE).astype(float)  # (B, G)
            total, out = (times @ size)[:, None], (times == 0).astype(float)
            best = self.best(times @ right.T / total, times @ loss.T / total)
            left = out @ size
            hits = np.take_along_axis(out @ right.T, best[:, None], 1)[:, 0]
            told += [float(h / n) for h, n in zip(hits, left, strict=True) if n]
        return float(np.mean(told)) if told else float(self.right[self.chosen()].mean())


def expected_of(entry: Contender, options: Choice, at: int, groups: Tensor, folds: int, seed: int) -> Expected:
    """How good the chosen method is expected to be.

    Args:
        entry: the chosen one.
        options: what was chosen by.
        at: its place there.
        groups: ``(N,)`` of the tested images.
        folds: of the cross-validation, or 1.
        seed: of the bootstrap.
    """
    accuracy = options.corrected(groups.numpy(), seed)
    images, apart = len(groups), len(groups.unique())
    overlap = 1.0 if entry.unlearned or folds == 1 else 1 + folds / (folds - 1)
    seen, count = float(options.right[at].mean()), apart / overlap
    low, high = wilson(accuracy, count)[0], wilson(max(accuracy, seen), count)[1]
    return Expected(accuracy, low, high, seen, images, apart, folds, entry.repeats)


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share that so many trials showed; the number need not be whole."""
    square = NORMAL**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = NORMAL / (1 + square / count) * sqrt(share * (1 - share) / count + square / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)
