"""What the checks of the contract are written with."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adaptkit.features.items import Images
from adaptkit.methods.adapt import adapt_quietly
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task

Make = Callable[[], Method]
Check = Callable[[Make, Task, Images], None]


@dataclass(frozen=True)
class Adaptation:
    """An adapted method as it was before it answered anything, what it came from, and the generator's state then."""

    kind: type[Method]
    options: str
    task: Task
    method: Method
    state: Tensor


KEPT: list[Adaptation] = []  # the latest only: the checks of one method follow one another


def adapted(make: Make, task: Task, *, anew: bool = False) -> Method:
    """The method, adapted from a fixed seed: once for all checks that ask for the same, who get a copy each.

    Args:
        make: makes the method.
        task: what it adapts to; another object is another task.
        anew: adapt again, in a check that is about adapting, or about what a copy might hide.
    """
    torch.manual_seed(0)
    method = make()
    kind, options = type(method), repr(method)
    for kept in () if anew else KEPT:
        if (kept.kind, kept.options) == (kind, options) and kept.task is task:
            torch.set_rng_state(kept.state)
            return copy.deepcopy(kept.method)
    method = adapt_quietly(method, task)
    if not anew:
        keep(Adaptation(kind, options, task, method, torch.get_rng_state()))
    return method


def keep(adaptation: Adaptation) -> None:
    """Keep a copy for other checks, in place of the one before; what cannot be copied is adapted for each check."""
    KEPT.clear()
    with contextlib.suppress(Exception):  # whatever a stranger's attributes raise: no check is about copying
        KEPT.append(replace(adaptation, method=copy.deepcopy(adaptation.method)))


def same(got: Tensor, want: Tensor, what: str, tolerance: float = 1e-3) -> None:
    """Assert that outputs are equal up to rounding, relative to the largest."""
    ensure(got.shape == want.shape, f"{what}: shape {tuple(got.shape)} became {tuple(want.shape)}")
    worst, scale = float((got - want).abs().max()), float(want.abs().max())
    ensure(worst <= tolerance * max(scale, 1e-6), f"{what}: outputs differ by {worst:.2g} of at most {scale:.2g}")


def ensure(condition: bool, message: str) -> None:
    """Assert, in a sentence, also where Python was told to skip assertions."""
    if not condition:
        raise AssertionError(message)
