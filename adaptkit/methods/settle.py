"""Lay an adapted method's tensors out as they will be after loading: other strides or alignment, other last digits.

A matrix product over the same numbers is rounded otherwise where a factor is transposed in memory, or begins in the
middle of a storage. Which processors show it differs; with one layout before saving and after, none does.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.features.items import Images
from adaptkit.methods.task import Task
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.once import Once

OWN = {*vars(nn.Module())}  # what every module has, whatever it computes
OTHERS = (Backbone, Images, Once, Task, type, ModuleType, FunctionType, MethodType)  # not a method's to change
ALIGNED = 64  # bytes; fresh memory begins at a multiple of these


def settle(method: nn.Module) -> None:
    """Make every tensor that a method keeps contiguous and aligned, wherever it keeps it; values stay, bit for bit."""
    _settled(method, {})


def laid_out(x: Tensor) -> Tensor:
    """The tensor itself where it lies in memory as a fresh one would; else a copy that does, without gradient."""
    if x.layout != torch.strided or (x.stride() == _strides(x.shape) and x.data_ptr() % ALIGNED == 0):
        return x
    return x.detach().clone(memory_format=torch.contiguous_format)


def _strides(shape: torch.Size) -> tuple[int, ...]:
    """Strides of a fresh tensor; `is_contiguous` looks away where a dimension has one entry, but products do not."""
    return torch.empty(shape, device="meta").stride()


def _settled(value: Any, seen: dict[int, Any]) -> Any:  # noqa: ANN401 (whatever a method keeps)
    """The value, or what takes its place; modules and other objects keep their identity."""
    if id(value) in seen:
        return seen[id(value)][1]
    if isinstance(value, nn.Parameter):
        value.data = laid_out(value.data)
        return value
    if isinstance(value, Tensor):
        seen[id(value)] = value, laid_out(value)  # the first keeps the number its own
        return seen[id(value)][1]
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        items = [_settled(v, seen) for v in value]
        return value if all(map(operator.is_, items, value)) else type(value)(items)
    if type(value) is dict:
        return {**value, **changed} if (changed := _changed(value, seen)) else value
    if hasattr(value, "__dict__") and not isinstance(value, OTHERS):
        seen[id(value)] = value, value
        kept = {name: v for name, v in vars(value).items() if name not in OWN or not isinstance(value, nn.Module)}
        vars(value).update(_changed(kept, seen))
        if isinstance(value, nn.Module):
            for part in (value._parameters, value._buffers, value._modules):
                part.update(_changed(part, seen))
    return value


def _changed(kept: Mapping[str, Any], seen: dict[int, Any]) -> dict[str, Any]:
    """What takes the place of other values, by name."""
    return {name: new for name, v in kept.items() if (new := _settled(v, seen)) is not v}
