"""The time that may be used, and what still fits into it."""

from __future__ import annotations

import time
from collections.abc import Callable

RESERVE, RESERVE_SHARE = 2.0, 0.05  # seconds kept back for the last fit, the files and the page, and a share of all


class Budget:
    """A stretch of time that began when this was made, by a clock that is never set back.

    Attributes:
        seconds: of it.
        reserve: seconds of it that no trial may use.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.clock, self.start = seconds, clock, clock()
        self.reserve = min(RESERVE + RESERVE_SHARE * seconds, seconds / 3)

    @property
    def used(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self.start

    @property
    def left(self) -> float:
        """Seconds that trials may still use; below 0 where it was overrun."""
        return self.seconds - self.reserve - self.used

    def fits(self, cost: float) -> bool:
        """Whether something that takes so many seconds would end in time."""
        return cost <= self.left

    def keep(self, cost: float) -> None:
        """Keep back at least so many seconds for the end."""
        self.reserve = max(self.reserve, min(cost + RESERVE + RESERVE_SHARE * self.seconds, self.seconds / 2))
