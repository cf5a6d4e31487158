"""What an answer is worth, through torchmetrics."""

from __future__ import annotations

from collections.abc import Callable

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
