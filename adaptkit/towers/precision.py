"""Arithmetic of the towers, by Lightning's names."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager:
    """Mixed precision on a device."""
    import torch  # here, so that reading a recipe does not wait for it

    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    if precision not in kinds:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=kinds[precision])
