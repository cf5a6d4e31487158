"""Who does the work of a command: this process, some part of it, or an engine on one machine or many."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from adaptkit.io.ranges import Count, Range, hold

if TYPE_CHECKING:
    from adaptkit.runs.engine import Engine

ENGINES = ("serial", "ray")
Cores = Annotated[float, Range(0.1, 1_000)]
"""Processor cores of a worker."""
Cards = Annotated[float, Range(0, 64)]
"""GPUs of a worker, or a share of one."""
OF_ENGINE = {"address": str, "workers": Count, "cpus": Cores, "gpus": Cards}  # options of an engine's own


def add_engine(command: argparse.ArgumentParser) -> None:
    """The options that say who works."""
    some = "one part of the work, e.g. 1/4 on the first of four machines; all parts share one --home"
    command.add_argument("--shard", type=shard_of, metavar="I/N", help=some)
    who = "serial: this process; ray: workers on this machine or a cluster"
    command.add_argument("--engine", choices=ENGINES, default=ENGINES[0], help=who)
    joined = "a Ray cluster that stands (default: one is started here)"
    command.add_argument("--address", metavar="HOST:PORT", help=joined)
    command.add_argument("--cpus", type=float, metavar="N", help="cores, and threads, of each worker (default: 1)")
    command.add_argument("--gpus", type=float, metavar="N", help="GPUs of each worker, e.g. 0.5 (default: 1 if any)")


@contextmanager
def engine(options: argparse.Namespace) -> Iterator[Engine | None]:
    """The engine that was asked for; none for this process.

    Raises:
        ValueError: for an option out of its range, or one of an engine that nobody asked for.
    """
    given: dict[str, Any] = {name: v for name in OF_ENGINE if (v := getattr(options, name)) is not None}
    if options.engine == "serial":
        given.pop("workers", None)  # those decode pictures, see `machine_changes`
        if given:
            raise ValueError(f"--{next(iter(given))} must come with --engine ray; got it without; add --engine ray")
        yield None
        return
    if options.shard:
        raise ValueError("--shard must be left out with --engine ray, which shares out the work itself; got both")
    if given.get("workers") == "auto":
        del given["workers"]
    for name, value in given.items():
        hold(value, OF_ENGINE[name], f"--{name}")
    if given.get("address") == "":
        raise ValueError("--address must be HOST:PORT, auto or ray://HOST:PORT; got ''; leave it out to start Ray here")
    from adaptkit.engines.ray_workers import RayWorkers

    with RayWorkers(**given) as workers:
        workers.check()
        yield workers


def shard_of(text: str) -> tuple[int, int]:
    """``(i, n)`` of ``"i/n"``, the i-th of n parts, counted from 1.

    Raises:
        argparse.ArgumentTypeError: when there is no such part.
    """
    part = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not part or not 1 <= int(part[1]) <= int(part[2]):
        raise argparse.ArgumentTypeError(f"must be i/n with 1 <= i <= n, e.g. 1/4; got {text!r}")
    return int(part[1]), int(part[2])
