"""What the checks of the contract are written with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adaptkit.features.items import Images
from adaptkit.methods.adapt import adapt
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task

Make = Callable[[], Method]
Check = Callable[[Make, Task, Images], None]


def adapted(make: Make, task: Task) -> Method:
    """The method, adapted from a fixed seed."""
    torch.manual_seed(0)
    return adapt(make(), task)


def same(got: Tensor, want: Tensor, what: str, tolerance: float = 1e-3) -> None:
    """Assert that outputs are equal up to rounding, relative to the largest."""
    ensure(got.shape == want.shape, f"{what}: shape {tuple(got.shape)} became {tuple(want.shape)}")
    worst, scale = float((got - want).abs().max()), float(want.abs().max())
    ensure(worst <= tolerance * max(scale, 1e-6), f"{what}: outputs differ by {worst:.2g} of at most {scale:.2g}")


def ensure(condition: bool, message: str) -> None:
    """Assert, in a sentence, also where Python was told to skip assertions."""
    if not condition:
        raise AssertionError(message)
