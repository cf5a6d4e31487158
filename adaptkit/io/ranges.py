"""The numbers that an option may be: stated in its annotation, held wherever a value comes from."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any


@dataclass(frozen=True)
class Range:
    """The numbers that an option may be, both ends among them, as its annotation says.

    A value outside is refused wherever it comes from, a recipe, the command line or a constructor, before anything
    runs. What costs memory or time has an upper end, too.

    Attributes:
        low: the least number allowed.
        high: the largest.

    >>> from typing import Annotated
    >>> import adaptkit as ak
    >>> from adaptkit import Range
    >>> class Sharper(ak.ZeroShot):
    ...     power: Annotated[float, Range(1, 8)] = 2.0
    >>> Sharper(power=9)
    Traceback (most recent call last):
    ValueError: Sharper.power must be a number from 1 to 8; got 9
    """

    low: float
    high: float

    def __str__(self) -> str:
        return f"from {self.low:,} to {self.high:,}"


Count = Annotated[int, Range(0, 10_000)]
"""How many of what takes memory; there may be none."""
Size = Annotated[int, Range(1, 10_000)]
"""How many of what takes memory; at least one."""
Steps = Annotated[int, Range(0, 1_000_000)]
"""How often something is done; it may be left out."""
Tries = Annotated[int, Range(1, 1_000)]
"""Values of one hyperparameter in a search."""
Share = Annotated[float, Range(0, 1)]
"""A part of a whole."""
Weight = Annotated[float, Range(0, 1_000_000)]
"""A factor or a penalty; zero leaves out what it weighs."""
Positive = Annotated[float, Range(0.000_001, 1_000_000)]
"""What something is divided by, such as a temperature."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""What random numbers start from."""


def bounds_of(annotation: Any) -> tuple[float, float] | tuple[None, None]:  # noqa: ANN401 (any type)
    """The ends of the range that an annotation states; twice ``None`` where it states none."""
    for limits in typing.get_args(annotation)[1:] if typing.get_origin(annotation) is Annotated else ():
        if isinstance(limits, Range):
            return limits.low, limits.high
    return None, None


def hold(value: Any, kind: Any, where: str) -> None:  # noqa: ANN401 (any type)
    """Hold numbers to the ranges of an annotation; what states no range may be anything.

    Raises:
        ValueError: when a number is outside, or is none, naming `where`, the range and the value.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    low, high = bounds_of(kind)
    if low is not None and high is not None:
        number = isinstance(value, Integral if args[0] is int else Real) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise ValueError(f"{where} must be {describe(kind)}; got {value!r}")
    elif origin in (typing.Union, types.UnionType) and any(bounds_of(each)[0] is not None for each in args):
        if not any(_fits(value, each, where) for each in args):
            raise ValueError(f"{where} must be {' or '.join(map(describe, args))}; got {value!r}")
    elif origin in (tuple, list, Sequence) and isinstance(value, tuple | list):
        for each, own in zip(value, args if args[-1] is not Ellipsis else args[:1] * len(value), strict=False):
            hold(each, own, where)


def describe(kind: Any) -> str:  # noqa: ANN401 (any type)
    """A type in words a recipe's author knows."""
    if bounds_of(kind) != (None, None):
        plain, *limits = typing.get_args(kind)
        return f"{describe(plain)} {next(each for each in limits if isinstance(each, Range))}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(kind) or str(getattr(kind, "__name__", kind))


def _fits(value: Any, kind: Any, where: str) -> bool:  # noqa: ANN401 (any type)
    if bounds_of(kind) == (None, None):
        return value is None if kind is type(None) else isinstance(value, kind) if isinstance(kind, type) else True
    try:
        hold(value, kind, where)
    except ValueError:
        return False
    return True
