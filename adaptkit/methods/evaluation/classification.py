"""One label per item."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import one_hot

from adaptkit.methods.evaluation.base import Evaluation


class Classification(Evaluation):
    """Logits ``(N, C)`` against class ids ``(N,)``."""

    kind = "classification"
    shape = "(N, C) logits and (N,) class ids"
    headline = ("accuracy",)
    paired = "accuracy"
    unscaled = frozenset({"nll", "ece", "brier"})
    falling = frozenset({"nll", "ece", "brier"})

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(answers, targets)

    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Whether the largest logit, the first of equal ones, is the true class's; booleans."""
        return hits(answers, targets)

    def objective(self, answers: Tensor, targets: Tensor) -> float:
        """Accuracy."""
        self.check(answers, targets)
        return float(hits(answers, targets).double().mean())

    def metrics(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        """See `classification`."""
        self.check(answers, targets)
        return classification(answers, targets)

    def per_class(self, answers: Tensor, targets: Tensor) -> list[float | None]:
        """Share of each class's items that were answered right."""
        return per_class(hits(answers, targets), targets, answers.shape[1])

    def fits(self, answers: Tensor, targets: Tensor) -> bool:
        """Rows of logits of two classes or more, and ids."""
        return answers.dim() == 2 and targets.dim() == 1 and answers.shape[1] > 1


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether logits, ``(..., N, C)``, are largest at labels, ``(N,)``; of equal ones the first is; ``(..., N)``."""
    return logits.argmax(-1) == labels


def classification(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Metrics of ``(N, C)`` logits against ``(N,)`` labels.

    Returns:
        ``accuracy``, ``top5_accuracy`` (of six classes or more) and ``macro_accuracy`` (mean over classes), between 0
        and 1; of the softmax, ``ece`` (expected calibration error, 15 bins, between 0 and 1), ``nll`` (mean negative
        log-likelihood, nats) and ``brier`` (mean over images of the summed squared error, between 0 and 2).
    """
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

    classes = logits.shape[1]
    accuracy: Callable[..., Tensor] = multiclass_accuracy
    top5 = {"top5_accuracy": float(accuracy(logits, labels, classes, average="micro", top_k=5))} if classes > 5 else {}
    log_p = logits.double().log_softmax(-1)
    return {
        "accuracy": float(hits(logits, labels).double().mean()),
        **top5,
        "macro_accuracy": float(accuracy(logits, labels, num_classes=classes, average="macro")),
        "ece": float(multiclass_calibration_error(logits.softmax(-1), labels, num_classes=classes, n_bins=15)),
        "nll": float(-log_p.gather(1, labels[:, None]).mean()),
        "brier": float((log_p.exp() - one_hot(labels, classes)).square().sum(-1).mean()),
    }


def per_class(right: Tensor, labels: Tensor, classes: int) -> list[float | None]:
    """Share of each class's images that were answered right, from ``(N,)`` booleans and labels."""
    count = labels.bincount(minlength=classes)
    share = torch.zeros(classes, dtype=torch.double).index_add_(0, labels, right.double()) / count
    return [float(s) if n else None for s, n in zip(share, count, strict=True)]


def by_support(shares: Sequence[float | None], counts: Sequence[int], bins: tuple[int, int]) -> dict[str, float]:
    """Mean accuracy over classes with many, a medium number of, or few labelled images; see `Setting`."""
    kinds = ["few" if n < bins[0] else "many" if n > bins[1] else "medium" for n in counts]
    groups = {kind: [s for s, k in zip(shares, kinds, strict=True) if k == kind and s is not None] for kind in KINDS}
    return {f"{kind}_accuracy": sum(group) / len(group) for kind, group in groups.items() if group}


KINDS = ("many", "medium", "few")
