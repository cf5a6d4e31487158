"""What a table's log says of its shards, and which of them count."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from adaptkit.io.notices import Notice

ShardLine = dict[str, Any]  # a line of a log

ENTRY = ("shard", "rows", "shape", "bytes", "sha256", "seconds")
MERGED = "merged"  # a field of shards that hold sums: the names of those that they replace
CAP = 16 * 2**20  # bytes of a shard that others are merged into, at most: a merge takes a tenth of a second
FAN = 8  # shards of a size that are merged into one of the next


class DamagedShardWarning(Notice):
    """A shard is missing or altered: its rows count as missing, until they are computed and appended again."""


def is_entry(entry: Mapping[str, Any]) -> bool:
    """Whether a line of a log could tell of a shard."""
    rows, shape, size, seconds = entry["rows"], entry["shape"], entry["bytes"], entry["seconds"]
    merged = entry.get(MERGED, [])
    named = isinstance(merged, list) and all(_is_name(name) for name in (entry["shard"], *merged))
    counted = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in (rows, size, *shape))
    hashed = isinstance(entry["sha256"], str)
    return named and hashed and counted and type(seconds) in (int, float) and 0 <= seconds < float("inf")


def _is_name(name: object) -> bool:
    return re.fullmatch(r"[0-9a-f]{16}\.safetensors", str(name)) is not None


class Ledger:
    """The shards that count, by the lines of a log so far, and their totals: a line costs what it says.

    Attributes:
        live: by name.
        young: those that are still to be merged.
    """

    def __init__(self) -> None:
        self.live: dict[str, ShardLine] = {}
        self.young: dict[str, ShardLine] = {}
        self.rows, self.bytes, self.seconds = 0, 0, 0.0

    def add(self, entry: ShardLine) -> list[str]:
        """Take a line; which shards do not count any more, or are told of anew."""
        gone = [name for name in {entry["shard"], *entry.get(MERGED, ())} if self._drop(name)]
        self.live[entry["shard"]] = entry
        if MERGED not in entry or entry["bytes"] < CAP // 2:
            self.young[entry["shard"]] = entry
        self._count(entry, 1)
        return gone

    def _drop(self, name: str) -> bool:
        if name not in self.live:
            return False
        self._count(self.live.pop(name), -1)
        self.young.pop(name, None)
        return True

    def _count(self, entry: ShardLine, sign: int) -> None:
        self.rows += sign * entry["rows"]
        self.bytes += sign * entry["bytes"]
        self.seconds += sign * entry["seconds"]


def due(sizes: Iterable[tuple[str, int]], cap: int) -> list[str]:
    """What is to be merged: the oldest of those of a size, once they are `FAN` or fill `cap`; as many as `cap` holds.

    Sizes are of one kind within a factor of `FAN`. What has half of `cap` is left alone, so that a row is written again
    once for each kind of size.

    Args:
        sizes: names and bytes, the oldest first.
        cap: bytes that may be merged at once.
    """
    kinds: dict[int, list[tuple[str, int]]] = {}
    for name, size in sizes:
        kinds.setdefault(((cap // 2 // max(1, size)).bit_length() + 2) // 3, []).append((name, size))
    for kind in sorted(kinds.keys() - {0}, reverse=True):
        if len(kinds[kind]) >= FAN or sum(size for _, size in kinds[kind]) >= cap:
            group, room = list[str](), cap
            for name, size in kinds[kind]:
                if group and size > room:
                    break
                group.append(name)
                room -= size
            return group
    return []
