"""How many labelled images of a class: a number, or all that there are, which recipes and records write ``all``."""

from __future__ import annotations

from typing import Any

ALL_SHOTS = 2**31 - 1  # stands behind every number that may be asked for


def read_shots(value: Any) -> Any:  # noqa: ANN401 (checked by whoever asks)
    """A number of shots as it is reckoned with; whatever is not ``"all"`` stays."""
    return ALL_SHOTS if isinstance(value, str) and value == "all" else value


def plain_shots(shots: int) -> int | str:
    """A number of shots as files have it."""
    return "all" if shots == ALL_SHOTS else shots
