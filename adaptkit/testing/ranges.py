"""The check that no option can take more memory or time than anybody meant: every number states its range."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from adaptkit.features.items import Images
from adaptkit.io.ranges import bounds_of, hints, hold
from adaptkit.io.values import default
from adaptkit.methods.task import Task
from adaptkit.testing.harness import Make, ensure


def options_have_ranges(make: Make, task: Task, queries: Images) -> None:
    """Every number among the options states its range, in which its default lies and what its grid tries."""
    method = make()
    cls = type(method)
    for option in fields(cls):
        kind = hints(cls).get(option.name)
        ensure(
            not [*unbounded(kind)],
            f"{cls.__name__}.{option.name} must state its range, e.g. "
            f"'{option.name}: Annotated[float, adaptkit.Range(0, 1)]'; got {option.type}",
        )
        hold(default(option), kind, f"the default of {cls.__name__}.{option.name}")
    for name, values in method.grid().items():
        for value in values:
            hold(value, hints(cls).get(name), f"what the grid of {cls.__name__} tries for {name}")


def unbounded(kind: Any) -> Iterator[Any]:  # noqa: ANN401 (any type)
    """The numbers in an annotation that state no range."""
    if kind in (int, float):
        yield kind
    elif bounds_of(kind) == (None, None):
        for inner in typing.get_args(kind) if typing.get_origin(kind) is not typing.Literal else ():
            yield from unbounded(inner)
