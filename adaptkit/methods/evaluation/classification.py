"""One label per item."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import one_hot

from adaptkit.methods.evaluation.base import Evaluation
from adaptkit.methods.evaluation.condensed import LIKELIEST, Condensed, likeliest


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
        return self.metrics_of(self.condense(answers, targets))

    def condense(self, answers: Tensor, targets: Tensor) -> Condensed:
        """A few numbers of an item, whatever number of classes there are."""
        self.check(answers, targets)
        return condensed(answers, targets)

    def metrics_of(self, items: Condensed) -> dict[str, float]:
        """See `classification`."""
        return classification(items)

    def told_of(self, items: Condensed) -> tuple[Tensor, list[float | None]]:
        """Which items were answered right, and the share of those of each class."""
        right, labels = items.columns["best"] == items.columns["label"], items.columns["label"]
        return right, per_class(right, labels, items.width)

    def kept_of(self, items: Condensed) -> dict[str, Tensor]:
        """The five likeliest classes and their probabilities."""
        of = items.columns
        return {"predicted": of["best"], **{name: of[name] for name in ("confidence", "others", "likely")}}

    def per_class(self, answers: Tensor, targets: Tensor) -> list[float | None]:
        """Share of each class's items that were answered right."""
        return per_class(hits(answers, targets), targets, answers.shape[1])

    def fits(self, answers: Tensor, targets: Tensor) -> bool:
        """Rows of logits of two classes or more, and ids."""
        return answers.dim() == 2 and targets.dim() == 1 and answers.shape[1] > 1


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether logits, ``(..., N, C)``, are largest at labels, ``(N,)``; of equal ones the first is; ``(..., N)``."""
    return logits.argmax(-1) == labels


def condensed(logits: Tensor, labels: Tensor) -> Condensed:
    """What `classification` needs of ``(N, C)`` logits and ``(N,)`` labels: a few columns of N numbers."""
    classes = logits.shape[1]
    likely, sure = logits.softmax(-1).max(-1), logits.double().log_softmax(-1)
    columns = {
        "label": labels,
        "best": logits.argmax(-1),
        "confidence": likely.values.float(),
        "confirmed": likely.indices == labels,  # the softmax may make equal what was not
        "nll": -sure.gather(1, labels[:, None])[:, 0],
        "brier": (sure.exp() - one_hot(labels, classes)).square().sum(-1),
    }
    first = logits.topk(min(LIKELIEST, classes), sorted=False).indices
    if classes > LIKELIEST:
        columns["among_five"] = (first == labels[:, None]).any(-1)
    others = likeliest(logits, columns["best"], first)["others"]
    columns |= {"others": others.int(), "likely": sure.gather(1, others).exp().half()}
    return Condensed(columns, classes)


def classification(items: Condensed) -> dict[str, float]:
    """Metrics of what was kept of ``(N, C)`` logits and ``(N,)`` labels.

    Returns:
        ``accuracy``, ``top5_accuracy`` (of six classes or more), ``macro_accuracy`` (mean over classes) and
        ``macro_f1`` (mean over classes with an image or an answer), between 0 and 1; of the softmax, ``ece`` (expected
        calibration error, 15 bins, between 0 and 1), ``nll`` (mean negative log-likelihood, nats) and ``brier`` (mean
        over images of the summed squared error, between 0 and 2).
    """
    from torchmetrics.functional.classification import (
        binary_calibration_error,
        multiclass_accuracy,
        multiclass_f1_score,
    )

    of, count = items.columns, len(items.columns["label"])
    accuracy: Callable[..., Tensor] = multiclass_accuracy
    f1: Callable[..., Tensor] = multiclass_f1_score
    top5 = {"top5_accuracy": float(of["among_five"].sum().float() / count)} if "among_five" in of else {}
    return {
        "accuracy": float((of["best"] == of["label"]).double().mean()),
        **top5,
        "macro_accuracy": float(accuracy(of["best"], of["label"], num_classes=items.width, average="macro")),
        "macro_f1": float(f1(of["best"], of["label"], num_classes=items.width, average="macro")),
        "ece": float(binary_calibration_error(of["confidence"], of["confirmed"].long(), n_bins=15)),
        "nll": float(of["nll"].mean()),
        "brier": float(of["brier"].mean()),
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
