"""What an answer is worth, through torchmetrics and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot


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
        "accuracy": float((logits.argmax(-1) == labels).double().mean()),
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
