"""The numbers that an option may be: stated in its annotation, held wherever a value comes from."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
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
Many = Annotated[int, Range(1, 1_000_000_000)]
"""How many of what is met one after the other, and not held."""
BlockNumber = Annotated[int, Range(-1_000, 1_000)]
"""Which block of a tower, from 0 or, negative, from the end."""
Steps = Annotated[int, Range(0, 1_000_000)]
"""How often something is done; it may be left out."""
Tries = Annotated[int, Range(1, 1_000)]
"""Values of one hyperparameter in a search."""
Workers = Annotated[int, Range(1, 1_000)]
"""Threads or processes that work beside each other."""
Share = Annotated[float, Range(0, 1)]
"""A part of a whole."""
Weight = Annotated[float, Range(0, 1_000_000)]
"""A factor or a penalty; zero leaves out what it weighs."""
Positive = Annotated[float, Range(0.000_001, 1_000_000)]
"""What something is divided by, such as a temperature."""
Epsilon = Annotated[float, Range(1e-12, 1)]
"""What keeps a division from being one by zero."""
Views = Annotated[int, Range(1, 1_000)]
"""How many views of an image."""
Shots = Annotated[int, Range(1, 1_000_000)]
"""How many labelled images of a class, at most."""
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


def hints(cls: Any) -> Mapping[str, Any]:  # noqa: ANN401 (a class of any kind)
    """The annotations of a class with the ranges that they state; none of a class whose names cannot be found."""
    return _hints(cls)


@cache
def _hints(cls: type) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except (NameError, TypeError):  # a name that was local, or is there for type checkers only
        return {}


def hold_options(cls: Any, values: Mapping[str, Any], where: str = "") -> None:  # noqa: ANN401 (of any kind)
    """Hold options, by name, to the ranges that the annotations of a class state.

    Args:
        cls: whose annotations they are.
        values: by name; what has no annotation may be anything.
        where: stands before an option's name in errors; default the name of the class.

    Raises:
        ValueError: naming the option, the range and the value.
    """
    for name, value in values.items():
        hold(value, hints(cls).get(name), f"{where or cls.__name__}.{name}")


def describe(kind: Any) -> str:  # noqa: ANN401 (any type)
    """A type in words a recipe's author knows."""
    if bounds_of(kind) != (None, None):
        plain, *limits = typing.get_args(kind)
        return f"{describe(plain)} {next(each for each in limits if isinstance(each, Range))}"
    if typing.get_origin(kind) is tuple and typing.get_origin(typing.get_args(kind)[0]) is tuple:
        return f"a list of lists, each {' and '.join(map(describe, typing.get_args(typing.get_args(kind)[0])))}"
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(kind) or str(getattr(kind, "__name__", kind))


def written(kind: Any) -> str:  # noqa: ANN401 (any type)
    """An annotation as Python writes it, without the ranges that it states."""
    if bounds_of(kind) != (None, None):
        return written(typing.get_args(kind)[0])
    if (inner := typing.get_args(kind)) and typing.get_origin(kind) in (tuple, list):
        names = ", ".join("..." if each is Ellipsis else written(each) for each in inner)
        return f"{typing.get_origin(kind).__name__}[{names}]"
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def ranges_in(kind: Any) -> Iterator[str]:  # noqa: ANN401 (any type)
    """The ranges that an annotation states, in words, those of its parts included."""
    if isinstance(kind, Range):
        yield str(kind)
    for inner in typing.get_args(kind) if typing.get_origin(kind) is not typing.Literal else ():
        yield from ranges_in(inner)


def _fits(value: Any, kind: Any, where: str) -> bool:  # noqa: ANN401 (any type)
    if typing.get_origin(kind) is tuple and any(True for _ in ranges_in(kind)):
        args = typing.get_args(kind)
        kinds = args if args[-1] is not Ellipsis else args[:1] * (len(value) if isinstance(value, tuple | list) else 0)
        if not isinstance(value, tuple | list) or len(value) != len(kinds):
            return False
        return all(_fits(each, own, where) for each, own in zip(value, kinds, strict=True))
    if typing.get_origin(kind) is typing.Literal:
        return isinstance(value, str | int) and value in typing.get_args(kind)
    if bounds_of(kind) == (None, None):
        return value is None if kind is type(None) else isinstance(value, kind) if isinstance(kind, type) else True
    try:
        hold(value, kind, where)
    except ValueError:
        return False
    return True
