"""Scores that tell items of the task's classes from others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptkit.methods.evaluation.base import Evaluation, check_binary
from adaptkit.methods.evaluation.condensed import Condensed


class Detection(Evaluation):
    """Scores ``(N,)``, higher for items of the task's classes, against ``(N,)``: 1 for those, 0 for others."""

    kind = "detection"
    shape = "(N,) scores and (N,) zeros and ones"
    headline = ("auroc", "fpr95")
    paired = "auroc"
    falling = frozenset({"fpr95"})

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy, scores being logits."""
        self.check(answers, targets)
        return F.binary_cross_entropy_with_logits(answers, targets.to(answers))

    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Each item's part in the area under the curve, whose mean that area is; see `placements`."""
        self.check(answers, targets)
        return placements(answers, targets)

    def objective(self, answers: Tensor, targets: Tensor) -> float:
        """Area under the receiver operating characteristic."""
        return self.metrics(answers, targets)["auroc"]

    def metrics(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        """See `detection`."""
        self.check(answers, targets)
        check_binary(targets, "targets")
        return detection(answers[targets == 1], answers[targets == 0])

    def kept_of(self, items: Condensed) -> dict[str, Tensor]:
        """The score."""
        return {"score": items.columns["answers"].float()}

    def fits(self, answers: Tensor, targets: Tensor) -> bool:
        """One number each."""
        return answers.dim() == targets.dim() == 1


def placements(scores: Tensor, targets: Tensor) -> Tensor:
    """Parts in the area under the curve, ``(N,)`` doubles whose mean is that area.

    A positive's share is that of the negatives below it, a negative's that of the positives above it, ties by half;
    each is weighed so that both sides count the same (DeLong et al., Biometrics 44, 1988).
    """
    check_binary(targets, "targets")
    one = targets == 1
    inside, outside = scores[one].double(), scores[~one].double()
    out = torch.empty(len(scores), dtype=torch.double, device=scores.device)
    for own, other, side in ((inside, outside, one), (-outside, -inside, ~one)):
        ranked = other.sort().values
        below = torch.searchsorted(ranked, own) + torch.searchsorted(ranked, own, right=True)
        out[side] = below.double() / 2 / len(other) * len(scores) / 2 / len(own)
    return out


def detection(inside: Tensor, outside: Tensor) -> dict[str, float]:
    """How well scores tell images of the task's classes from others: ``(N,)`` and ``(M,)``, higher for `inside`.

    Returns:
        ``auroc``; ``aupr`` (average precision, `inside` positive); and ``fpr95``, the share of `outside` above the
        threshold that a share of `inside` nearest to 95 % exceeds, as the out-of-distribution literature has it. All
        between 0 and 1.

    Raises:
        ValueError: where one of them is empty.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    if not len(inside) or not len(outside):
        raise ValueError(f"scores must be of images inside and outside; got {len(inside)} and {len(outside)}")
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
