"""Which jobs a worker is given at once, and which are given again when a worker has died."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, field

DEATHS = 3  # workers that a job may end by itself
PACE = 2.0  # seconds after which a worker hands over what it has done
JOBS_AT_ONCE = 64  # jobs that a worker is given at once
HOPELESS = 10 * DEATHS  # deaths in a row, after which it is no job that ends workers


@dataclass
class Jobs:
    """Which jobs are to be done, in order, and how often each has ended a worker by itself.

    Attributes:
        numbers: of the jobs.
        seconds: that a job took of late.
        last: how many were given at once then.
    """

    numbers: InitVar[Iterable[int]]
    seconds: float = math.inf
    last: int = 1
    waiting: deque[int] = field(init=False)
    alone: deque[int] = field(default_factory=deque, init=False)  # those that a dead worker had
    deaths: dict[int, int] = field(default_factory=dict, init=False)
    running: int = field(default=0, init=False)  # deaths since a worker has done something

    def __post_init__(self, numbers: Iterable[int]) -> None:
        self.waiting = deque(numbers)

    def take(self, workers: int) -> list[int]:
        """The next jobs for a worker: as many as it may do in time, and a fair share of what is left."""
        if self.alone:
            return [self.alone.popleft()]
        fair = math.ceil(len(self.waiting) / (2 * workers))
        quick = max(1, min(2 * self.last, int(PACE / max(self.seconds, 1e-9)))) if self.seconds < math.inf else 1
        count = max(1, min(JOBS_AT_ONCE, fair, quick))
        return [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]

    def done(self, given: Sequence[int], count: int, seconds: float) -> None:
        """Some of those given are done; the rest come next."""
        self.waiting.extendleft(reversed(given[count:]))
        self.running = 0
        self.seconds, self.last = seconds / max(1, count), len(given)

    def died(self, given: Sequence[int]) -> int | None:
        """A worker has died; the job that is given up, if any.

        Raises:
            ValueError: when so many have died in a row that it is not for what they do.
        """
        self.running += 1
        if self.running >= HOPELESS:
            raise ValueError(
                f"workers must live; got {self.running} that died one after another; look at the machine's memory, "
                "give fewer --workers, or run without --engine"
            )
        if len(given) > 1:
            self.alone.extend(given)
            return None
        (number,) = given
        self.deaths[number] = self.deaths.get(number, 0) + 1
        if self.deaths[number] >= DEATHS:
            return number
        self.alone.append(number)
        return None
