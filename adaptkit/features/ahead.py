"""What is being decoded before it is read."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

Prepared = list[Future[list[Any]]]  # of each item all its views


class Ahead:
    """Items that are being decoded before they are read.

    Attributes:
        used: whether they were what was read then.
    """

    def __init__(self, what: tuple[object, ...], prepared: Prepared) -> None:
        self.what, self.prepared, self.used = what, prepared, False

    def take(self, what: tuple[object, ...]) -> Prepared | None:
        """What was decoded, if it is this; else it is forgotten."""
        self.used = self.what == what
        prepared, self.prepared = self.prepared, []
        if not self.used:
            for future in prepared:
                future.cancel()
        return prepared if self.used else None
