"""What a table's log says of a shard."""

import re
from collections.abc import Mapping
from typing import Any

ENTRY = ("shard", "rows", "shape", "bytes", "sha256", "seconds")


class DamagedShardWarning(UserWarning):
    """A shard is missing or altered: its rows count as missing, until they are computed and appended again."""


def is_entry(entry: Mapping[str, Any]) -> bool:
    """Whether a line of a log could tell of a shard."""
    rows, shape, size, seconds = entry["rows"], entry["shape"], entry["bytes"], entry["seconds"]
    named = re.fullmatch(r"[0-9a-f]{16}\.safetensors", str(entry["shard"])) and isinstance(entry["sha256"], str)
    counted = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in (rows, size, *shape))
    return bool(named) and counted and type(seconds) in (int, float) and 0 <= seconds < float("inf")
