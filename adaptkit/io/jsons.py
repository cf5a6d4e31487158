"""JSON from files that anybody may have written: plain values of bounded depth and size, or one `ValueError`."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptkit.io.paths import read_file

DEEPEST = 200  # lists and mappings inside each other: what walks a value by calling itself must come to its end
BITS = 63  # whole numbers of so many fit wherever they go


def parse_json(text: str | bytes, bits: int = BITS) -> Any:  # noqa: ANN401 (any JSON value)
    """One JSON value, whose whole numbers have at most so many bits.

    Raises:
        ValueError: when it is none, gives a key twice, is nested too deeply or holds too large a whole number.
    """
    try:
        value = json.loads(text, object_pairs_hook=mapping)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    return held_plain(value, bits)


def mapping(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping of keys that differ: of one that is given twice, a reader would take either and drop the other."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"keys must differ; got {twice[:100]!r} twice")
    return found


def read_json(path: Path, bits: int = BITS) -> Any:  # noqa: ANN401 (any JSON value)
    """The JSON value in a file, whose whole numbers have at most so many bits.

    Raises:
        OSError: when it cannot be read.
        ValueError: as `parse_json`.
    """
    return parse_json(read_file(path), bits)


def strict_json(value: object, indent: int | None = 1) -> str:
    """A value as JSON that every reader takes: what is no finite number is null, and what is no plain value its text.

    >>> strict_json({"ece": float("nan"), "bins": (3, 8)}, indent=None)
    '{"ece": null, "bins": [3, 8]}'
    """
    return json.dumps(plainly(value), indent=indent, allow_nan=False)


def plainly(value: object) -> object:
    """A value as mappings, lists, text, finite numbers, truth values and nulls."""
    if isinstance(value, Mapping):
        return {str(key): plainly(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plainly(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


TOO_DEEP = f"values must be nested at most {DEEPEST} deep; got deeper ones"


def held_plain(value: Any, bits: int = BITS) -> Any:  # noqa: ANN401 (any value)
    """The value, if it is made of mappings, lists, text, numbers, truth values and nulls, of bounded depth and size.

    Raises:
        ValueError: when it is not.
    """
    level = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for each in level:
            kind = type(each)
            if kind is dict:
                inner += each.values()
            elif kind is list:
                inner += each
            elif kind is int and each.bit_length() > bits:
                raise ValueError(f"whole numbers must have at most {bits} bits; got one of {each.bit_length()}")
            elif kind not in (str, int, float, bool, type(None)):
                raise ValueError(f"values must be text, numbers, lists or mappings; got a {kind.__name__}, {each!r}")
        if not inner:
            return value
        level = inner
    raise ValueError(TOO_DEEP)
