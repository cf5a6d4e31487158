"""What a method says that is asked before it was adapted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any


class UnadaptedError(ValueError):
    """A method was asked before it was adapted."""


@contextmanager
def adapted_first(method: Any) -> Iterator[None]:  # noqa: ANN401 (a method; no circle)
    """Say of a method that is asked before it was adapted that it is so, in place of the attribute that it lacks.

    Raises:
        UnadaptedError: naming the outermost method that was not adapted.
    """
    try:
        yield
    except (AttributeError, UnadaptedError) as error:
        name = type(method).__name__
        lacks = isinstance(error, UnadaptedError) or f"{name!r} object has no attribute" in str(error)
        if not lacks or not as_constructed(method):
            raise
        raise UnadaptedError(f"{name} must be adapted before it answers; call adaptkit.adapt(method, task)") from error


def as_constructed(method: Any) -> bool:  # noqa: ANN401 (a method; no circle)
    """Whether a method holds what its constructor gives it and nothing else."""
    try:
        fresh = type(method)(**{f.name: getattr(method, f.name) for f in fields(method)})
    except Exception:  # whatever a stranger's constructor raises; the error that led here is the one to show
        return False
    parts = [(vars(m), m._buffers, m._parameters, m._modules) for m in (method, fresh)]
    return all(set(held) == set(new) for held, new in zip(*parts, strict=True))
