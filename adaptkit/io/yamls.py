"""YAML as recipes use it: plain values only; repeated keys and aliases are errors, not surprises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from adaptkit.io.jsons import TOO_DEEP, held_plain
from adaptkit.io.paths import regular

MOST = 10_000_000  # bytes of a recipe


class StrictLoader(yaml.SafeLoader):
    """Refuses repeated keys (PyYAML keeps the last in silence) and aliases (a few lines can expand to millions)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping without repeated keys."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool):
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401 (PyYAML's)
        """A node that is no alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", self.peek_event().start_mark)
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds one mapping.

    Raises:
        ValueError: when it is not one, in one line with the place.
    """
    try:
        value = parse_yaml(regular(path, "a recipe", MOST).read_bytes().decode())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"a recipe must be a readable YAML file; got {str(path)!r}: {why}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: a recipe must be a mapping of keys to values; got {type(value).__name__}")
    return value


def parse_yaml(text: str) -> Any:  # noqa: ANN401 (any YAML value)
    """One YAML value from text.

    Raises:
        ValueError: when it cannot be read.
    """
    try:
        return held_plain(yaml.load(text, StrictLoader))  # noqa: S506 (a SafeLoader, made stricter)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:  # PyYAML's own, of tags like !!int
        raise ValueError(f"values must be what their tags say; got {type(error).__name__}: {error}") from error
