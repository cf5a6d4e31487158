"""Arithmetic of the towers, by Lightning's names."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from adaptkit.towers.backbone import Backbone

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
AskedPrecision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # what processors that multiply it by themselves say they have
AMPERE = (8, 0)  # compute capability of the first GPUs that do


class Deviation(NamedTuple):
    """How far features in lower precision are from those in ``32-true``.

    Attributes:
        cosine: of an image's two embeddings, the smallest.
        largest: difference of one number, as a share of its embedding's largest; the largest of these.
    """

    cosine: float
    largest: float


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager:
    """Mixed precision on a device."""
    import torch  # here, so that reading a recipe does not wait for it

    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    if precision not in kinds:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=kinds[precision])


def resolve(precision: AskedPrecision, device: torch.device) -> Precision:
    """What is asked for; of ``"auto"``, ``"bf16-mixed"`` where the device multiplies bfloat16 by itself.

    >>> resolve("16-mixed", "any device")
    '16-mixed'
    """
    if precision != "auto":
        return precision
    return "bf16-mixed" if has_bfloat16(device) else "32-true"


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16, which are faster; others do it by way of float32, slowly."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= AMPERE
    told: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return any(told.get(name) for name in BFLOAT16)


def deviation(backbone: Backbone, pixels: Tensor, precision: Precision) -> Deviation:
    """Measure it on some images, ``(B, 3, H, W)`` as they enter the tower."""
    import torch

    with torch.no_grad(), backbone.unaltered():
        whole = backbone.encode_image(pixels)
        with autocast(precision, backbone.device):
            lower = backbone.encode_image(pixels).float()
    cosine = torch.nn.functional.cosine_similarity(whole.double(), lower.double())
    largest = (lower - whole).abs().amax(-1) / whole.abs().amax(-1)
    return Deviation(float(cosine.min()), float(largest.max()))
