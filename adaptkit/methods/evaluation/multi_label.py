"""Any number of labels per item."""

from __future__ import annotations

from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptkit.methods.evaluation.base import Evaluation
from adaptkit.methods.evaluation.condensed import Condensed, likeliest


class MultiLabel(Evaluation):
    """Logits ``(N, C)`` against ``(N, C)``: 1 where an item has the label, else 0."""

    kind = "multi-label"
    shape = "(N, C) logits and (N, C) zeros and ones"
    headline = ("mAP",)
    paired = "lrap"

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy, with logits."""
        self.check(answers, targets)
        return F.binary_cross_entropy_with_logits(answers, targets.to(answers))

    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Each item's own average precision over labels, ``(N,)`` doubles; 1 where it has all labels or none.

        Of labels with equal logits the worst order counts, as in scikit-learn's ``label_ranking_average_precision``.
        """
        self.check(answers, targets)
        step = max(1, 2**24 // answers.shape[1] ** 2)
        pairs = zip(answers.split(step), targets.bool().split(step), strict=True)
        return torch.cat([self._precision(*rows) for rows in pairs])

    def _precision(self, answers: Tensor, has: Tensor) -> Tensor:
        """Each row's average precision over labels, where all pairs of these fit into memory."""
        above = answers[:, None, :] >= answers[:, :, None]  # (N, of this label, that one)
        precision = (above & has[:, None]).sum(-1).double() / above.sum(-1)
        count = has.sum(-1)
        whole = (count == 0) | (count == has.shape[1])
        return torch.where(whole, 1.0, (precision * has).sum(-1) / count.clamp(min=1))

    def objective(self, answers: Tensor, targets: Tensor) -> float:
        """Mean average precision."""
        return self._mean_precision(answers, targets)

    def metrics(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        """How well items are ranked under each label, and labels are told at a probability of one half.

        Returns:
            ``mAP``, the mean over labels that some item has of their average precision; ``lrap``, the mean over items
            of theirs; ``micro_f1`` and ``macro_f1``. All between 0 and 1.

        Raises:
            ValueError: when no item has any label.
        """
        from sklearn.metrics import f1_score

        precision = self._mean_precision(answers, targets)
        told, true = (answers > 0).cpu().numpy(), targets.bool().cpu().numpy()
        f1 = {f"{how}_f1": float(f1_score(true, told, average=how, zero_division=0)) for how in ("micro", "macro")}
        return {"mAP": precision, "lrap": float(self.right(answers, targets).mean()), **f1}

    def per_class(self, answers: Tensor, targets: Tensor) -> list[float | None]:
        """Each label's average precision."""
        from sklearn.metrics import average_precision_score

        self.check(answers, targets)
        columns = zip(answers.T.cpu().numpy(), targets.T.cpu().numpy(), strict=True)
        return [float(average_precision_score(true, score)) if true.any() else None for score, true in columns]

    def kept_of(self, items: Condensed) -> dict[str, Tensor]:
        """The five likeliest labels, each by itself, and their probabilities."""
        answers = items.columns["answers"]
        first = likeliest(answers, answers.argmax(-1))
        told = answers.float().sigmoid()
        sure = {"confidence": told.amax(-1), "likely": told.gather(1, first["others"]).half()}
        return {**first, **sure}

    def fits(self, answers: Tensor, targets: Tensor) -> bool:
        """Two tables of one shape, with labels."""
        return answers.dim() == 2 and answers.shape == targets.shape and answers.shape[1] > 0

    def check(self, answers: Tensor, targets: Tensor) -> None:
        """Shapes, and targets of 0 and 1."""
        super().check(answers, targets)
        if not ((targets == 0) | (targets == 1)).all():
            raise ValueError(f"targets must be 0 or 1; got {targets.unique()[:5].tolist()}")

    def _mean_precision(self, answers: Tensor, targets: Tensor) -> float:
        known = [value for value in self.per_class(answers, targets) if value is not None]
        if not known:
            raise ValueError(f"targets must have a label somewhere; got {len(targets)} items without any")
        return mean(known)
