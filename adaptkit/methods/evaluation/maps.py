"""Anomaly maps against masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaptkit.methods.evaluation.base import Evaluation, check_binary
from adaptkit.methods.evaluation.condensed import Condensed
from adaptkit.methods.evaluation.detection import placements
from adaptkit.methods.evaluation.pimo import BOUNDS, aupimo
from adaptkit.methods.evaluation.small_maps import own_auroc, small_maps

LIMIT = 0.3  # false positives beyond which nobody would look at a map


class Maps(Evaluation):
    """Maps ``(N, H, W)``, higher for anomalous pixels, against masks ``(N, H, W)``: 1 for those, 0 for others.

    A map of another size than its mask is resized. An image's own score is its map's maximum, unless the answer has it:
    see `with_scores`.
    """

    kind = "maps"
    shape = "(N, H, W) maps, or (N, 2, H, W) with scores, and (N, H, W) masks of zeros and ones"
    headline = ("pixel_auroc", "aupro", "image_auroc")
    paired = "pixel_auroc"

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy over pixels, with logits."""
        self.check(answers, targets)
        maps = stretched(map_of(answers), targets.shape[1:])
        return F.binary_cross_entropy_with_logits(maps, targets.to(maps))

    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Each image's part in the area under the curve of all pixels, ``(N,)`` doubles; see `placements`."""
        self.check(answers, targets)
        maps = stretched(map_of(answers), targets.shape[1:])
        return placements(maps.flatten(), targets.flatten()).view(len(maps), -1).mean(-1)

    def objective(self, answers: Tensor, targets: Tensor) -> float:
        """Area under the receiver operating characteristic of all pixels."""
        return float(self.right(answers, targets).mean())

    def metrics(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        """How well anomalous pixels, regions of them, and images are told.

        Returns:
            ``pixel_auroc``, ``pixel_ap`` (average precision) and ``pixel_f1`` (the largest at any threshold) of all
            pixels; ``aupro``, see `region_overlap`; where there are normal images besides, ``image_auroc``,
            ``image_ap`` and ``image_f1``; and ``aupimo``, the mean over anomalous images, where normal ones have the
            pixels that its share of false positives asks for, 100,000.

        Raises:
            ValueError: when all pixels are anomalous, or none is.
        """
        return self.metrics_of(self.condense(answers, targets))

    def condense(self, answers: Tensor, targets: Tensor) -> Condensed:
        """Each map, of the size of its mask, and the image's score."""
        self.check(answers, targets)
        maps = stretched(map_of(answers), targets.shape[1:])
        return Condensed({"answers": maps, "targets": targets, "scores": image_scores(answers)})

    def metrics_of(self, items: Condensed) -> dict[str, float]:
        """The `metrics` of items."""
        targets, scores = items.columns["targets"], items.columns["scores"].cpu().numpy()
        check_binary(targets, "masks")
        maps, masks = items.columns["answers"].float().cpu().numpy(), targets.bool().cpu().numpy()
        found = {f"pixel_{name}": value for name, value in told_apart(maps.ravel(), masks.ravel()).items()}
        found["aupro"] = region_overlap(maps, masks)
        anomalous = np.asarray(masks.any((1, 2)))
        if not anomalous.all():
            found |= {f"image_{name}": value for name, value in told_apart(scores, anomalous).items()}
            if (~anomalous).sum() * masks[0].size * BOUNDS[0] >= 1:
                found["aupimo"] = float(np.nanmean(aupimo(maps, masks)))
        return found

    def kept_of(self, items: Condensed) -> dict[str, Tensor]:
        """The image's score, whether it is anomalous, how well its own pixels are told, and a small map."""
        maps, masks = items.columns["answers"], items.columns["targets"]
        about = {"score": items.columns["scores"].float(), "anomalous": masks.flatten(1).any(1)}
        return {**about, "pixel_auroc": own_auroc(maps, masks), **small_maps(maps, masks)}

    def strata(self, targets: Tensor) -> Tensor:
        """Whether masks have an anomalous pixel, ``(N,)`` of 0 and 1."""
        return targets.flatten(1).any(1).long()

    def fits(self, answers: Tensor, targets: Tensor) -> bool:
        """Maps, perhaps with a plane of scores, and masks."""
        planes = answers.dim() == 3 or (answers.dim() == 4 and answers.shape[1] == 2)
        return planes and targets.dim() == 3 and answers[0].numel() > 0 and targets[0].numel() > 0


def with_scores(maps: Tensor, scores: Tensor) -> Tensor:
    """Maps ``(N, H, W)`` with a score of each image, ``(N,)``, in every pixel of a second plane: ``(N, 2, H, W)``.

    >>> import torch
    >>> from adaptkit.methods.evaluation.maps import image_scores, map_of, with_scores
    >>> answers = with_scores(torch.zeros(3, 8, 8), torch.tensor([0.0, 0.5, 1.0]))
    >>> map_of(answers).shape, image_scores(answers)
    (torch.Size([3, 8, 8]), tensor([0.0000, 0.5000, 1.0000]))
    """
    return torch.stack([maps, scores.to(maps)[:, None, None].expand_as(maps)], 1)


def map_of(answers: Tensor) -> Tensor:
    """The maps alone, ``(N, H, W)``, of answers with scores or without."""
    return answers[:, 0] if answers.dim() == 4 else answers


def image_scores(answers: Tensor) -> Tensor:
    """A score for each image, ``(N,)``, higher for anomalous ones: as answered, or else the map's maximum."""
    return answers[:, 1, 0, 0] if answers.dim() == 4 else answers.flatten(1).amax(1)


def stretched(grid: Tensor, size: int | Sequence[int], corners: bool = False) -> Tensor:
    """Scores of patches, ``(N, h, w)``, as maps of a size, by bilinear interpolation; as they are where they have it.

    Args:
        grid: of scores.
        size: of maps, rows and columns; 0 leaves them as they are.
        corners: whether the outer scores stand in the corners of maps, or in the middle of what they cover.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    if not rows or grid.shape[-2:] == (rows, columns):
        return grid
    return F.interpolate(grid[:, None], size=(rows, columns), mode="bilinear", align_corners=corners)[:, 0]


def told_apart(scores: np.ndarray, positive: np.ndarray) -> dict[str, float]:
    """``auroc``, ``ap`` (average precision) and ``f1``, the largest at any threshold, of ``(N,)`` scores."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    precision, recall, _ = precision_recall_curve(positive, scores)
    return {
        "auroc": float(roc_auc_score(positive, scores)),
        "ap": float(average_precision_score(positive, scores)),
        "f1": float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()),
    }


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
