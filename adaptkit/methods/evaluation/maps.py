"""Anomaly maps against masks."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from adaptkit.methods.evaluation.base import Evaluation, check_binary
from adaptkit.methods.evaluation.detection import placements

LIMIT = 0.3  # false positives beyond which nobody would look at a map


class Maps(Evaluation):
    """Maps ``(N, H, W)``, higher for anomalous pixels, against masks ``(N, H, W)``: 1 for those, 0 for others."""

    kind = "maps"
    shape = "(N, H, W) maps and (N, H, W) masks of zeros and ones"
    headline = ("pixel_auroc", "aupro")
    paired = "pixel_auroc"

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy over pixels, with logits."""
        self.check(answers, targets)
        return F.binary_cross_entropy_with_logits(answers, targets.to(answers))

    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Each image's part in the area under the curve of all pixels, ``(N,)`` doubles; see `placements`."""
        self.check(answers, targets)
        return placements(answers.flatten(), targets.flatten()).view(len(answers), -1).mean(-1)

    def objective(self, answers: Tensor, targets: Tensor) -> float:
        """Area under the receiver operating characteristic of all pixels."""
        return float(self.right(answers, targets).mean())

    def metrics(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        """How well anomalous pixels, and regions of them, are told.

        Returns:
            ``pixel_auroc`` and ``pixel_ap`` (average precision) of all pixels, and ``aupro``; see `region_overlap`.

        Raises:
            ValueError: when all pixels are anomalous, or none is.
        """
        from sklearn.metrics import average_precision_score, roc_auc_score

        self.check(answers, targets)
        check_binary(targets, "masks")
        maps, masks = answers.cpu().numpy(), targets.bool().cpu().numpy()
        return {
            "pixel_auroc": float(roc_auc_score(masks.ravel(), maps.ravel())),
            "pixel_ap": float(average_precision_score(masks.ravel(), maps.ravel())),
            "aupro": region_overlap(maps, masks),
        }

    def strata(self, targets: Tensor) -> Tensor:
        """Whether masks have an anomalous pixel, ``(N,)`` of 0 and 1."""
        return targets.flatten(1).any(1).long()

    def fits(self, answers: Tensor, targets: Tensor) -> bool:
        """Maps and masks of one size."""
        return answers.dim() == 3 and answers.shape == targets.shape and answers[0].numel() > 0


def region_overlap(maps: np.ndarray, masks: np.ndarray, limit: float = LIMIT) -> float:
    """Area under the per-region overlap curve, as a share of the best, between 0 and 1.

    For every threshold, the mean over anomalous regions of the share that lies above it, against the share of normal
    pixels above it, up to `limit` of these. Regions hang together over edges and corners.

    Source: Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 129, 2021.

    Args:
        maps: ``(N, H, W)``.
        masks: ``(N, H, W)`` booleans, some true and some false.
        limit: above 0, at most 1.
    """
    from scipy.ndimage import label

    weight = np.zeros(masks.shape)  # what a pixel adds to the mean overlap
    regions = 0
    for mask, out in zip(masks, weight, strict=True):
        numbered, count = label(mask, structure=np.ones((3, 3), dtype=int))
        sizes = np.bincount(numbered.ravel())
        out[mask] = 1 / sizes[numbered[mask]]
        regions += count
    order = np.argsort(-maps.ravel(), kind="stable")
    scores = maps.ravel()[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of pixels that share a score
    false = np.append(0, np.cumsum(~masks.ravel()[order])[last] / (~masks).sum())
    overlap = np.append(0, np.cumsum(weight.ravel()[order])[last] / regions)
    at_limit = np.interp(limit, false, overlap)  # false positives never fall
    inside = false <= limit
    x, y = np.append(false[inside], limit), np.append(overlap[inside], at_limit)
    return float(np.clip(np.trapezoid(y, x) / limit, 0.0, 1.0))
