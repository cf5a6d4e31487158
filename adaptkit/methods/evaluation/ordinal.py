"""Grades: classes in an order."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from adaptkit.methods.evaluation.base import Evaluation
from adaptkit.methods.evaluation.condensed import Condensed, likeliest


class Ordinal(Evaluation):
    """Grades ``(N,)``, real numbers, or ``(N, C)`` logits of grades 0 to C - 1, against ``(N,)`` whole numbers."""

    kind = "ordinal"
    shape = "(N,) grades or (N, C) logits and (N,) whole numbers"
    headline = ("mae", "spearman")
    paired = "mae"
    unscaled = frozenset({"mae", "spearman", "kendall"})
    falling = frozenset({"mae"})

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits; mean absolute error of grades."""
        self.check(answers, targets)
        return F.cross_entropy(answers, targets) if answers.dim() == 2 else F.l1_loss(answers, targets.to(answers))

    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """The error of each grade, below zero, ``(N,)`` doubles."""
        self.check(answers, targets)
        return -(grades(answers).double() - targets).abs()

    def objective(self, answers: Tensor, targets: Tensor) -> float:
        """The mean absolute error, below zero."""
        return float(self.right(answers, targets).mean())

    def metrics(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        """How far grades are off, and whether they are in order.

        Returns:
            ``mae``, the mean absolute error in grades; ``spearman`` and ``kendall`` (tau-b), rank correlations between
            -1 and 1, 0 where all answers or all targets are equal; ``within_one``, the share of answers at most one
            grade off; and ``accuracy``, that of answers nearest to the right grade.
        """
        from scipy.stats import kendalltau, spearmanr

        error = -self.right(answers, targets)
        given, true = grades(answers).cpu().numpy(), targets.cpu().numpy()
        flat = len({*given.tolist()}) < 2 or len({*true.tolist()}) < 2
        return {
            "mae": float(error.mean()),
            "spearman": 0.0 if flat else float(spearmanr(given, true).statistic),
            "kendall": 0.0 if flat else float(kendalltau(given, true).statistic),
            "within_one": float((error <= 1).double().mean()),
            "accuracy": float((error < 0.5).double().mean()),
        }

    def kept_of(self, items: Condensed) -> dict[str, Tensor]:
        """The five likeliest grades and their probabilities; the answer where it is a grade."""
        answers = items.columns["answers"]
        if answers.dim() == 1:
            return {"score": answers.float()}
        first = likeliest(answers, answers.argmax(-1))
        told = answers.float().softmax(-1)
        sure = {"confidence": told.amax(-1), "likely": told.gather(1, first["others"]).half()}
        return {**first, **sure}

    def fits(self, answers: Tensor, targets: Tensor) -> bool:
        """Grades, or rows of logits, and whole numbers."""
        return answers.dim() in (1, 2) and targets.dim() == 1 and not targets.is_floating_point()


def grades(answers: Tensor) -> Tensor:
    """Answers as grades, ``(N,)``: of logits, the largest one's, the first of equal ones."""
    return answers.argmax(-1) if answers.dim() == 2 else answers
