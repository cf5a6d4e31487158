"""Items that are made of named parts: a caption and its image, an image and a text that says what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from adaptkit.features.datasets import Relabelled
from adaptkit.features.items import Source
from adaptkit.features.needs import Need
from adaptkit.io.errors import must_be
from adaptkit.io.files import digest


@dataclass(frozen=True, eq=False)
class Composite:
    """A source whose items have parts, each an item of another source. A need says of which by `Need.of`.

    What several items share, e.g. the image of five captions, is one stored row.

    Attributes:
        name: as progress bars and tables show it.
        parts: by name, a source and, for each item, the place of its part there.
        labels: a whole number for each item: of queries the place of what is sought; of pairs to learn from, the same
            for those that match each other.
        targets: rows of zeros and ones over the gallery in place of labels, where several of its items are right.

    >>> import adaptkit as ak
    >>> captions = ak.Captions(["a cat asleep", "a cat", "a dog"])
    >>> both = ak.Composite("both", {"text": (captions, [0, 1, 2]), "again": (captions, [1, 0, 2])}, labels=[0, 0, 1])
    >>> len(both), both.open(0)[1]["again"]
    (3, 'a cat')
    """

    name: str
    parts: Mapping[str, tuple[Source, Sequence[int]]]
    labels: Sequence[int] = ()
    targets: Sequence[Any] | None = None
    _alone: dict[str, Relabelled] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """As many of every part."""
        given = self.labels if self.targets is None else self.targets
        counts = {name: len(rows) for name, (_, rows) in self.parts.items()} | {"labels": len(given)}
        if not self.parts or len({*counts.values()}) > 1:
            raise ValueError(f"parts of {self.name} must be at least one, and as many as labels; got {counts}")

    def __len__(self) -> int:
        return len(next(iter(self.parts.values()))[1])

    def key(self, i: int) -> str:
        """Digest of all parts of item ``i``."""
        return digest(
            "".join(f"{name} {source.key(rows[i])}\n" for name, (source, rows) in self.parts.items()).encode()
        )

    def where(self, i: int) -> str | int:
        """The places of item ``i``'s parts in their sources, with a plus between them."""
        return " + ".join(f"{getattr(source, 'where', int)(rows[i])}" for source, rows in self.parts.values())

    def open(self, i: int) -> tuple[str, dict[str, Any]]:
        """The key and the parts of item ``i`` by name."""
        return self.key(i), {name: source.open(rows[i])[1] for name, (source, rows) in self.parts.items()}

    def part(self, name: str) -> Source:
        """One part of every item, as a source of its own.

        Raises:
            ValueError: for a name that is no part's.
        """
        if name not in self.parts:
            raise ValueError(must_be(f"a part of items of {self.name}", self.parts, name))
        if name not in self._alone:
            source, rows = self.parts[name]
            self._alone[name] = Relabelled(source, rows, [0] * len(rows), None, f"{self.name}, {name}")
        return self._alone[name]


def part_read(source: Source, need: Need) -> tuple[Source, Need]:
    """The source that a need reads, and what it asks of it.

    Raises:
        ValueError: for a part that the source's items do not have.
    """
    if not need.of:
        return source, need
    if not isinstance(source, Composite):
        raise ValueError(f"items must have a part {need.of!r} to be read; got {source.name}, whose items are whole")
    return source.part(need.of), replace(need, of="")
