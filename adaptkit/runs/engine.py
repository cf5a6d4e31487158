"""What does jobs elsewhere: the shape of an engine, which this wing knows no other thing of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

JobWork = Callable[[Sequence[Any], Path, Callable[[str], bool], float], list[Any]]
"""Does jobs in turn for about so many seconds: what the first of them come to, of one at least."""


class WorkerDiedError(RuntimeError):
    """A job that has ended every process that tried it."""


class Engine(Protocol):
    """Processes that do jobs, here or on other machines."""

    def each(self, work: JobWork, jobs: Sequence[Any], home: Path) -> Iterator[tuple[int, Any]]:
        """The number of each job and what it came to, or `WorkerDiedError`, as soon as that is known.

        Args:
            work: a function of a module, which every process has.
            jobs: values; those that stand together are done together.
            home: where features are kept.

        Raises:
            ValueError: when nothing can be done as it was asked for.
        """
        ...


def check_same(theirs: str, ours: str, what: str) -> None:
    """Refuse what a worker made of other code, images or weights than this process has.

    Raises:
        ValueError: when the keys differ.
    """
    if theirs != ours:
        raise ValueError(
            f"workers must have this process's adaptkit, plugins, images and weights; got {theirs} for {what}, which "
            f"is {ours} here; install and mount the same on every machine"
        )
