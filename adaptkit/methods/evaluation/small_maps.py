"""Anomaly maps as they are kept to be looked at: small, and with how well each image's own map tells its pixels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaptkit.methods.evaluation.detection import placements

MOST_SIDE, LEAST_SIDE = 64, 16  # pixels of a kept map's longer side
MOST_BYTES = 8 * 2**20  # of the kept maps of a test set: where images are many, sides are shorter


def small_maps(maps: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Maps ``(N, H, W)`` and masks ``(N, H, W)``, small enough to be kept beside a record.

    Returns:
        ``map``, ``(N, h, w)`` bytes: the mean over the pixels of each cell, 0 for the least number in all maps and 255
        for the largest. ``mask``, ``(N, h, w / 8)`` bytes, bits as `numpy.packbits` has them: 1 where a cell has an
        anomalous pixel. Nothing where there are more images than have a side of 16 pixels each.
    """
    side = min(MOST_SIDE, int((MOST_BYTES / len(maps)) ** 0.5))
    if side < LEAST_SIDE:
        return {}
    height, width = maps.shape[-2:]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(scale * height)), max(1, round(scale * width))
    low, high = float(maps.amin()), float(maps.amax())
    means = F.adaptive_avg_pool2d(maps[:, None].float(), size)[:, 0]  # (N, h, w)
    bytes_of = ((means - low) / max(high - low, 1e-12)).clamp(0, 1).mul(255).round().to(torch.uint8)
    marked = F.adaptive_max_pool2d(masks[:, None].float(), size)[:, 0] > 0
    return {"map": bytes_of.cpu(), "mask": torch.from_numpy(np.packbits(marked.cpu().numpy(), axis=-1))}


def own_auroc(maps: Tensor, masks: Tensor) -> Tensor:
    """Area under the curve of each image's own pixels, ``(N,)``; nan where these are all normal, or all anomalous.

    >>> import torch
    >>> from adaptkit.methods.evaluation.small_maps import own_auroc
    >>> masks = torch.tensor([[[0, 1]], [[0, 1]], [[0, 0]]])
    >>> own_auroc(torch.tensor([[[0.1, 0.9]], [[0.9, 0.1]], [[0.5, 0.5]]]), masks)
    tensor([1., 0., nan])
    """
    share = masks.flatten(1).float().mean(1)
    out = torch.full((len(maps),), float("nan"))
    for i in ((share > 0) & (share < 1)).nonzero()[:, 0].tolist():
        out[i] = placements(maps[i].flatten(), masks[i].flatten()).mean()
    return out
