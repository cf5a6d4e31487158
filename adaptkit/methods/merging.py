"""Tokens that are alike, merged into one."""

from __future__ import annotations

import torch
from torch import Tensor


def merged_tokens(tokens: Tensor, there: Tensor, weights: Tensor, count: int, near: int) -> tuple[Tensor, Tensor]:
    """Clusters around the densest tokens, each merged into one by weights, ``(B, C, D)``, and which are there.

    A token's density falls with the distance of its nearest ones. Those are centres that are dense and far from any
    denser one (density peaks).

    Args:
        tokens: ``(B, T, D)``.
        there: which of them are, ``(B, T)`` booleans, one at least.
        weights: what a token counts in its cluster, before the softmax, ``(B, T)``.
        count: of clusters, C; fewer are there of fewer tokens, or of equal ones.
        near: how many nearest tokens tell a token's density.

    >>> import torch
    >>> merged, there = merged_tokens(torch.eye(4)[None], torch.ones(1, 4).bool(), torch.zeros(1, 4), 2, near=1)
    >>> merged.shape, there.tolist()
    (torch.Size([1, 2, 4]), [[True, True]])
    """
    with torch.no_grad():
        far = torch.cdist(tokens, tokens, compute_mode="donot_use_mm_for_euclid_dist") / tokens.shape[-1] ** 0.5
        far = far.masked_fill(~(there[:, None] & there[..., None]), torch.inf)  # (B, T, T)
        nearest = far.topk(min(near + 1, far.shape[1]), largest=False).values
        known = nearest.isfinite()
        density = (-(nearest.nan_to_num(posinf=0).square() * known).sum(-1) / known.sum(-1).clamp_min(1)).exp()
        density = density - 1e-6 * torch.arange(far.shape[1], device=far.device)  # of equal ones the first is denser
        denser = density[:, None] > density[..., None]  # (B, T, T): whether the other is
        most = far.masked_fill(far.isinf(), 0.0).amax((1, 2))[:, None]
        peak = torch.minimum(far.masked_fill(~denser, torch.inf).amin(-1), most + 1e-6)
        centres = (density * peak).masked_fill(~there, -1.0).topk(count).indices.sort(-1).values  # (B, C)
        kept = there.gather(1, centres)
        away = far.gather(1, centres[..., None].expand(-1, -1, far.shape[1]))  # (B, C, T)
        away = away.masked_fill(~kept[..., None], torch.inf)
        own = torch.zeros_like(away).scatter(1, away.argmin(1, keepdim=True), 1.0).bool() & there[:, None]
    parts = weights[:, None].masked_fill(~own, torch.finfo(weights.dtype).min).softmax(-1) * own
    return parts @ tokens, own.any(-1)
