"""The sentence of every wrong name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from adaptkit.io.safe import line


def must_be(what: str, allowed: Any, got: object) -> str:  # noqa: ANN401 (any iterable of names)
    """The sentence of every wrong name: what must be, what was got, and the nearest match."""
    return f"{what} must be one of {', '.join(line(str(name)) for name in allowed)}; got {got!r}{alike(got, allowed)}"


def alike(got: object, allowed: Iterable[object]) -> str:
    """The nearest match, to put behind a wrong name; "" where none is near.

    >>> alike("gdaa", ["gda", "coop"])
    "; did you mean 'gda'?"
    """
    near = get_close_matches(str(got), [str(name) for name in allowed], n=1)
    return f"; did you mean {near[0]!r}?" if near and near[0] != got else ""
