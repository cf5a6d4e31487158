"""Plain values, as YAML has them, turned into what an annotation asks for: every mistake named before it costs."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from adaptkit.io.errors import must_be
from adaptkit.io.ranges import bounds_of, describe, hold

PLAIN = (int, float, str, bool)  # True is an int to Python, and a mistake in a recipe
builders: dict[type, Callable[[Any], Any]] = {}
"""How to build classes that recipes name: filled by the module that knows them."""


@dataclass(frozen=True)
class Spec:
    """A name of a table with options: a method, a support, prompts or a stream, as a recipe asks for it.

    Attributes:
        name: as ``adaptkit list`` shows it.
        options: plain values by name, as they were written; types are checked where the thing is built.
        below: options that it has where none was written, inside of mappings too; no part of its label.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    below: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: object, where: str = "a method") -> Spec:
        """From the two ways a recipe writes it, ``gda`` and ``{gda: {alpha: 1.0}}``; a spec is returned.

        Raises:
            ValueError: when it is neither, naming `where`.
        """
        if isinstance(value, Spec):
            return value
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, Mapping) and len(value) == 1:
            name, options = next(iter(value.items()))
            if isinstance(name, str) and isinstance(options, Mapping | None):
                return cls(name, dict(options or {}))
        raise ValueError(f"{where} must be a name, or one name with options, e.g. 'gda: {{alpha: 1.0}}'; got {value!r}")

    @property
    def label(self) -> str:
        """A row's name: the name and the options that were set, e.g. ``coop(n=4)``."""
        options = ", ".join(f"{key}={_short(value)}" for key, value in self.options.items())
        return f"{self.name}({options})" if options else self.name

    @property
    def whole(self) -> dict[str, Any]:
        """What it is built with."""
        return joined(self.below, self.options)

    @property
    def plain(self) -> str | dict[str, Any]:
        """As a recipe writes it; the inverse of `of`."""
        return {self.name: dict(self.options)} if self.options else self.name

    def __hash__(self) -> int:
        return self.name.__hash__()  # options may hold lists, and specs of one name are few


builders[Spec] = Spec.of


def joined(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping over another, and so on in the mappings that both hold."""
    deeper = [k for k, v in below.items() if isinstance(v, Mapping) and isinstance(above.get(k), Mapping)]
    return {**below, **above, **{k: joined(below[k], above[k]) for k in deeper}}


def convert(value: Any, kind: Any, where: str, field: Field | None = None) -> Any:  # noqa: ANN401 (any type)
    """A plain value as the type an annotation asks for.

    Raises:
        ValueError: when it is not one, naming `where`, the type and the value.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and kind in builders:
        return builders[kind](value)
    if bounds_of(kind) != (None, None):
        number = convert(value, args[0], where)
        hold(number, kind, where)
        return number
    if origin is typing.Literal:
        if value not in args:
            raise ValueError(must_be(where, args, value))
        return value
    if origin in (typing.Union, types.UnionType):
        return _first(value, args, where)
    if is_dataclass(kind):
        return _dataclass(value, kind, where, field)
    if origin in (tuple, list, Sequence) or kind in (tuple, list):
        return _sequence(value, args, where, tuple if (origin or kind) is tuple else list)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be a mapping; got {value!r}")
        return {convert(k, args[0], where): convert(v, args[1], f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except (ValueError, OverflowError):
            pass
    elif kind is Path and isinstance(value, str):
        return Path(value)
    elif kind is Any or (type(value) is kind if kind in PLAIN else isinstance(kind, type) and isinstance(value, kind)):
        return value
    raise ValueError(f"{where} must be {describe(kind)}; got {value!r}")


def default(field: Field) -> Any:  # noqa: ANN401 (any type)
    """A field's default value."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _short(value: Any) -> str:  # noqa: ANN401 (any YAML value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_short(v)}" for k, v in value.items()) + "}"
    return str(value)


def _first(value: Any, kinds: tuple[Any, ...], where: str) -> Any:  # noqa: ANN401 (any type)
    for kind in kinds:
        if kind is type(None) and value is None:
            return None
        try:
            return convert(value, kind, where)
        except ValueError:
            continue
    raise ValueError(f"{where} must be {' or '.join(map(describe, kinds))}; got {value!r}")


def _dataclass(value: Any, kind: Any, where: str, field: Field | None) -> Any:  # noqa: ANN401 (any type)
    """A mapping as a change to the field's default, all of whose fields it may name: ``schedule: {epochs: 5}``."""
    if isinstance(value, kind):
        return value
    if field and isinstance(before := default(field), kind):
        kind = type(before)  # which may have more fields than the annotation says
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a mapping of {', '.join(f.name for f in fields(kind))}; got {value!r}")
    hints = typing.get_type_hints(kind, include_extras=True)
    for key in value:
        if key not in hints:
            raise ValueError(must_be(f"a field of {where}", [f.name for f in fields(kind)], key))
    changes = {key: convert(v, hints[key], f"{where}.{key}") for key, v in value.items()}
    if field:
        return replace(default(field), **changes)
    if absent := [f.name for f in fields(kind) if f.default is f.default_factory is MISSING and f.name not in changes]:
        raise ValueError(f"{where} must have {', '.join(absent)}; got {dict(value)!r}")
    return kind(**changes)


def _sequence(value: Any, args: tuple[Any, ...], where: str, make: type) -> Any:  # noqa: ANN401 (any type)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} must be a list; got {value!r}")
    kinds = args[:1] * len(value) if (len(args) == 2 and args[1] is Ellipsis) or make is list else args
    if kinds and len(kinds) != len(value):
        raise ValueError(f"{where} must have {len(kinds)} values; got {value!r}")
    return make(convert(v, k, where) for v, k in zip(value, kinds or [Any] * len(value), strict=True))
