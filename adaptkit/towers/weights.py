"""Weights of frozen towers under neutral names, and other tensors in their places, inside a ``with`` block only."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adaptkit.towers.points import Point

NUMBERS = ("logit_scale", "logit_bias")  # a backbone keeps them as numbers; in the model nobody reads them
PRODUCTS = (nn.Linear, nn.Conv2d)  # modules whose weights autocast casts
_swaps: list[tuple[Mapping[Slot, Tensor], dict[Slot, Tensor]]] = []  # of open blocks: what came in, what was there


class Cast(NamedTuple):
    """A weight in another type, the weight, and where and in which state it was then."""

    lower: Tensor
    whole: Tensor
    made_of: tuple[torch.device, int]


@dataclass(frozen=True, eq=False)
class Slot:
    """One weight's place: a module, and the attribute it reads the weight by."""

    module: nn.Module
    attribute: str
    casts: dict[torch.dtype, Cast] = field(default_factory=dict, repr=False)

    def __deepcopy__(self, memo: dict) -> Slot:
        return self  # a place in a frozen model, which is not copied either

    def get(self) -> Tensor:
        """The weight in effect, as it was before `cast_once`."""
        weight: Tensor = self.module._parameters[self.attribute]  # type: ignore[assignment]
        return getattr(weight, "whole", weight)

    def put(self, weight: Tensor) -> None:
        """Let the module read another one, through which gradients pass."""
        self.module._parameters[self.attribute] = weight  # type: ignore[assignment]

    def cast(self, dtype: torch.dtype) -> None:
        """Let the module read its weight in another type, cast when it is first asked for."""
        weight, known = self.get(), self.casts.get(dtype)
        if known is None or known.whole is not weight or known.made_of != (weight.device, weight._version):
            known = self.casts[dtype] = Cast(weight.detach().to(dtype), weight, (weight.device, weight._version))
            known.lower.whole = weight  # type: ignore[attr-defined]
        self.put(known.lower)


def find_slots(points: Mapping[str, Point], model: nn.Module) -> dict[str, Slot]:
    """Every weight of a model by its name, in the model's order.

    A name is that of a point and the weight's own inside it, or ``model.`` and its own. What lies in several points is
    named by the smallest, e.g. by a linear map and not by its block.
    """
    names: dict[tuple[int, str], str] = {}
    known = [(name, point.module) for name, point in points.items() if ".-" not in name]  # blocks have two names
    for name, module in [*sorted(known, key=lambda named: sum(1 for _ in named[1].modules())), ("model", model)]:
        for inside, part in module.named_modules():
            for attribute, weight in part._parameters.items():
                if weight is not None and attribute not in NUMBERS:
                    names.setdefault((id(part), attribute), ".".join(filter(None, (name, inside, attribute))))
    places = ((part, attribute) for part in model.modules() for attribute in part._parameters)
    slots = ((names.get((id(part), attribute), ""), Slot(part, attribute)) for part, attribute in places)
    return {name: slot for name, slot in slots if name}


def find_slot(name: str, slots: Mapping[str, Slot], depth: Mapping[str, int]) -> Slot:
    """The slot of a name, which may leave out ``.weight``, and count blocks from the end.

    Raises:
        ValueError: for a name that there is not, with the nearest.
    """
    found = re.fullmatch(r"(\w+)\.block\.(-\d+)\.(.+)", name)
    whole = f"{found[1]}.block.{depth.get(found[1], 0) + int(found[2])}.{found[3]}" if found else name
    for known in (whole, f"{whole}.weight"):
        if known in slots:
            return slots[known]
    near = ", ".join(map(repr, get_close_matches(name, slots, n=3))) or "none is like it"
    raise ValueError(f"a weight must be one of backbone.weight_names(); got {name!r}; nearest: {near}")


def ensure_finite(model: nn.Module) -> None:
    """Refuse weights that spoil every answer.

    Raises:
        ValueError: naming the first that holds a NaN or an infinity.
    """
    for name, weight in model.state_dict().items():
        if not (fine := weight.isfinite()).all():
            bad = int((~fine).sum())
            raise ValueError(f"weight {name!r} must be finite; got NaN or inf in {bad} of {fine.numel()} numbers")


def at_slots(values: Mapping[str, Tensor], find: Callable[[str], Slot]) -> dict[Slot, Tensor]:
    """Tensors by the slots of their names, each as what stands there.

    Raises:
        ValueError: for a weight given twice, and what is no tensor of its shape, type and device.
    """
    slots: dict[Slot, tuple[str, Tensor]] = {}
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"weight {name!r} must be a tensor; got {type(value).__name__}")
        slot = find(name)
        if slot in slots:
            raise ValueError(f"a weight must be given once; got {slots[slot][0]!r} and {name!r} for one")
        slots[slot] = name, value
    for slot, (name, value) in slots.items():
        want = slot.get()
        if value.shape != want.shape:
            raise ValueError(f"weight {name!r} must have shape {tuple(want.shape)}; got {tuple(value.shape)}")
        if value.dtype != want.dtype:
            raise ValueError(f"weight {name!r} must be {want.dtype}, as the backbone; got {value.dtype}")
        if value.device != want.device:
            raise ValueError(f"weight {name!r} must be on {want.device}, as the backbone; got {value.device}")
    return {slot: value for slot, (_, value) in slots.items()}


@contextlib.contextmanager
def swapped(values: Mapping[Slot, Tensor]) -> Iterator[None]:
    """Put tensors into slots, and what was there back at the end, come what may, and in whatever order blocks end."""
    before = {slot: slot.get() for slot in values}
    _swaps.append((values, before))
    try:
        for slot, weight in values.items():
            slot.put(weight)
        yield
    finally:
        place = next(i for i, (_, kept) in enumerate(_swaps) if kept is before)
        for slot, weight in before.items():
            later = next((kept for _, kept in _swaps[place + 1 :] if slot in kept), None)
            if later is None:
                slot.put(weight)
            else:  # a block that began inside this one goes on: it will put this back
                later[slot] = weight
        del _swaps[place]


@contextlib.contextmanager
def cast_once(slots: Mapping[str, Slot], device: torch.device) -> Iterator[None]:
    """Where autocast is on, let products read weights that were cast before; it would cast frozen ones at every use.

    The same numbers, bit for bit. What is swapped in around stays: it changes, and gradients pass through it.
    """
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    dtype, others = torch.get_autocast_dtype(device.type), in_effect()
    own = [slot for slot in slots.values() if isinstance(slot.module, PRODUCTS) and slot not in others]
    before = [(slot, slot.get()) for slot in own]
    try:
        for slot in own:
            slot.cast(dtype)
        yield
    finally:
        for slot, weight in before:
            slot.put(weight)


def in_effect() -> dict[Slot, Tensor]:
    """What is swapped in now, in any backbone."""
    return {slot: weight for values, _ in _swaps for slot, weight in values.items()}


def unswapped() -> dict[Slot, Tensor]:
    """The frozen weights of all that is swapped now."""
    return {slot: weight for _, before in reversed(_swaps) for slot, weight in before.items()}
