"""The numbers of a folder's ``open_clip_config.json``, held to what towers can have before one is built from them."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from adaptkit.towers.openclip_files import CONFIG, FoundModel
from adaptkit.towers.processor import LARGEST
from adaptkit.towers.sizes import SPARE

TOWERS = ("vision_cfg", "text_cfg")
RANGES = {
    "embed_dim": (1, 2**16),
    "layers": (1, 256),
    "width": (1, 2**16),
    "heads": (1, 2**12),
    "head_width": (1, 2**16),
    "image_size": (1, LARGEST),
    "patch_size": (1, LARGEST),
    "context_length": (2, 2**20),
    "vocab_size": (1, 2**24),
    "attn_pooler_heads": (1, 2**12),
    "attn_pooler_queries": (1, 2**16),
}
"""Whole numbers by their key, from and to: far above every tower that was published."""


def ensure_openclip_sizes(found: FoundModel) -> None:
    """Refuse a number that no tower has, or that makes towers much larger than the weights.

    Raises:
        ValueError: naming the first key.
    """
    if found.folder is None:  # OpenCLIP's own numbers
        return
    where, settings = f"in {str(found.folder / CONFIG)!r} must be", found.settings
    for part in TOWERS:
        if not isinstance(settings.get(part), dict):
            raise ValueError(f"{part!r} {where} a mapping; got {reprlib.repr(settings.get(part))}")
    parts: dict[str, Mapping[str, Any]] = {"": settings, **{part: settings[part] for part in TOWERS}}
    for part, said in parts.items():
        for key, (low, high) in RANGES.items():
            values = said.get(key)
            listed = values if isinstance(values, list) else [values]
            if key not in said or (values is None and key == "patch_size"):
                continue
            if not listed or not all(type(n) is int and low <= n <= high for n in listed):
                name = f"{part}.{key}" if part else key
                raise ValueError(
                    f"{name!r} {where} a whole number from {low:,} to {high:,}; got {reprlib.repr(values)}"
                )
    if "embed_dim" not in settings:
        raise ValueError(f"'embed_dim' {where} a whole number; got none")
    held = SPARE + found.file.stat().st_size
    asked = sum(_weights(settings[part]) for part in TOWERS)
    if asked > held:
        raise ValueError(
            f"the sizes {where} those of the weights, {held - SPARE:,} bytes; got about {asked:,} weights; bring "
            "config and weights of one model"
        )


def _weights(tower: Mapping[str, Any]) -> int:
    """About how many weights a tower has, and not more than it has; 0 for one that only its name tells."""
    if any(key.endswith("_model_name") for key in tower):
        return 0
    width, layers = tower.get("width", 512), tower.get("layers", 12)
    rows = tower.get("vocab_size", 0)
    return int(rows * width) if isinstance(layers, list) else int(width * (12 * width * layers + rows))
