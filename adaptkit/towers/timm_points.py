"""Where a tower of `timm` can be entered."""

from __future__ import annotations

from typing import Any

from torch import nn

from adaptkit.towers.clip import named_blocks

TRUNK_PARTS = {
    "attn.q_proj": "q",
    "attn.k_proj": "k",
    "attn.v_proj": "v",
    "attn.proj": "out",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
    "norm1": "norm1",
    "norm2": "norm2",
}
"""Parts of a block of `timm`'s, and the ends of their points' names. What joins q, k and v is no point."""


def trunk_points(trunk: Any) -> dict[str, nn.Module]:  # noqa: ANN401 (timm's own)
    """Points of a tower of plain transformer blocks; none of any other.

    Where positions turn inside of attention, tokens cannot be added, and there is no ``image.tokens``. Where a norm
    stands between values and ``out``, the latter is no point: it does not read values as they are.
    """
    blocks = getattr(trunk, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not all(hasattr(block, "attn") for block in blocks):
        return {}
    points = named_blocks("image", [*blocks], TRUNK_PARTS)
    for i, block in enumerate(blocks):
        if isinstance(getattr(block.attn, "norm", None), nn.LayerNorm):
            points.pop(f"image.block.{i}.out", None)
    named = {"prenorm": "norm_pre", "norm": "norm", "head": "attn_pool"}
    rotary = any(getattr(trunk, name, None) is not None for name in ("rope", "rot_pos_embed"))
    named |= {} if rotary else {"tokens": "pos_drop"}
    for name, own in named.items():
        module = getattr(trunk, own, None)
        if isinstance(module, nn.Module) and (own == "pos_drop" or not isinstance(module, nn.Identity)):
            points[f"image.{name}"] = module
    return points
