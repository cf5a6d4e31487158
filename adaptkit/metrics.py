"""What an answer is worth, through torchmetrics and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def classification(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Metrics of ``(N, C)`` logits against ``(N,)`` labels.

    Returns:
        ``accuracy`` and ``macro_accuracy`` (mean over classes) between 0 and 1, ``ece`` (expected calibration error, 15
        bins, between 0 and 1) and ``nll`` (mean negative log-likelihood of the softmax, nats).
    """
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

    classes = logits.shape[1]
    accuracy: Callable[..., Tensor] = multiclass_accuracy
    return {
        "accuracy": float((logits.argmax(-1) == labels).double().mean()),
        "macro_accuracy": float(accuracy(logits, labels, num_classes=classes, average="macro")),
        "ece": float(multiclass_calibration_error(logits.softmax(-1), labels, num_classes=classes, n_bins=15)),
        "nll": float(-logits.double().log_softmax(-1).gather(1, labels[:, None]).mean()),
    }


def detection(inside: Tensor, outside: Tensor) -> dict[str, float]:
    """How well scores tell images of the task's classes from others: ``(N,)`` and ``(M,)``, higher for `inside`.

    Returns:
        ``auroc``; ``aupr`` (average precision, `inside` positive); and ``fpr95``, the share of `outside` above the
        threshold that a share of `inside` nearest to 95 % exceeds, as the out-of-distribution literature has it. All
        between 0 and 1.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    scores = torch.cat([inside, outside]).cpu().numpy()
    labels = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).numpy()
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    end = int(tpr.searchsorted(1.0)) + 1  # beyond the first threshold that all of `inside` exceeds
    nearest = end - 1 - int(abs(tpr[:end][::-1] - 0.95).argmin())  # of equally near ones the lowest threshold
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "aupr": float(average_precision_score(labels, scores)),
        "fpr95": float(fpr[nearest]),
    }
