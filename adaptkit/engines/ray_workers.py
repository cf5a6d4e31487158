"""Ray: workers that keep a setting open, fed with jobs by this process; the only file that knows Ray.

A worker gets some jobs that stand together, so that what takes milliseconds is not paid for by the call, and gives back
what it has not begun after two seconds. What a dead worker had is done again, job by job, by new ones; a job that has
ended several workers by itself is `WorkerDiedError`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from adaptkit.engines.handing import DEATHS, PACE, Jobs
from adaptkit.engines.room import STANDS, fits, hold_cores, reach
from adaptkit.io.home import home_at
from adaptkit.io.paths import expanded
from adaptkit.runs import plugins
from adaptkit.runs.engine import JobWork, WorkerDiedError
from adaptkit.runs.relay import files_in_use

PASSED_ON = ("ADAPTKIT_HOME", "ADAPTKIT_PLUGINS", "ADAPTKIT_STRICT_PLUGINS", "HF_HUB_OFFLINE", "HF_HOME")
TOKEN = "~/.ray/auth_token"  # where Ray keeps it
MISSING = "ray must be installed for --engine ray; got none; pip install 'adaptkit-vlm[ray]'"


@dataclass(frozen=True)
class Circumstances:
    """What a worker takes over from the process that started it, so that names mean the same there."""

    folder: str
    threads: int
    files: tuple[Path, ...]
    variables: dict[str, str]

    @classmethod
    def here(cls, threads: int) -> Circumstances:
        """Those of this process."""
        variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return cls(os.getcwd(), threads, tuple(files_in_use()), variables)


class Worker:
    """Does jobs in a process of its own."""

    def __init__(self, found: Circumstances) -> None:
        self.found, self.ready = found, False
        self.made: tuple[int, set[str]] = 0, set()

    def some(self, work: JobWork, jobs: Sequence[Any], home: Path, round: int) -> list[Any]:
        """What the first of some jobs come to; files that were handed over in the same round are not made again."""
        if not self.ready:
            self._settle()
        if round != self.made[0]:
            self.made = round, set()
        with home_at(home):
            return work(jobs, home, self._made, PACE)

    def _settle(self) -> None:
        """Take over circumstances, once; not at the start, where an error would look like a death."""
        os.environ |= self.found.variables
        if os.path.isdir(self.found.folder):
            os.chdir(self.found.folder)
        import torch

        torch.set_num_threads(self.found.threads)
        for file in self.found.files:
            plugins.use_file(file)
        self.ready = True

    def _made(self, path: str) -> bool:
        """Whether this worker has handed over a file of this path before; it has from now on."""
        before = path in self.made[1]
        self.made[1].add(path)
        return before


class RayWorkers:
    """An engine; Ray is started, or joined, when there is something to do, and left at the end of the ``with``."""

    def __init__(self, *, address: str = "", workers: int = 0, cpus: float = 1.0, gpus: float | None = None) -> None:
        """Set up.

        Args:
            address: of a cluster that stands; "" starts one on this machine.
            workers: processes; 0 for as many as there is room for.
            cpus: processor cores of each; it computes with so many threads.
            gpus: share of a GPU of each; None for a whole one where there are any.

        Raises:
            ValueError: where Ray is not installed.
        """
        self.address, self.workers, self.cpus, self.gpus = address, workers, cpus, gpus
        self.actors: list[Any] = []
        self.rounds, self.ended = 0, False
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address and expanded(TOKEN).exists():
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # or Ray would not show it to a cluster that asks for it
        try:
            import ray
        except ImportError as error:
            raise ValueError(MISSING) from error
        self.ray = ray

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.ray.is_initialized():
            for actor in self.actors:
                with contextlib.suppress(Exception):
                    self.ray.kill(actor)
            self.ray.shutdown()
        if signal.getsignal(signal.SIGTERM) == self._end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self.ended:
            signal.raise_signal(signal.SIGTERM)

    def check(self) -> None:
        """Refuse what cannot be before there is anything to do."""
        if self.address:
            reach(self.address)
        else:
            hold_cores(max(1, self.workers) * self.cpus)

    def each(self, work: JobWork, jobs: Sequence[Any], home: Path) -> Iterator[tuple[int, Any]]:
        """The number of each job and what it came to, or `WorkerDiedError`, as soon as that is known."""
        if not len(jobs):
            return
        count = min(self._start(), len(jobs))
        while len(self.actors) < count:
            self.actors.append(self._worker())
        left, idle, self.rounds = Jobs(range(len(jobs))), deque(self.actors[:count]), self.rounds + 1
        busy: dict[Any, tuple[Any, list[int], float]] = {}
        while left.waiting or left.alone or busy:
            while idle and (left.waiting or left.alone):
                actor, given = idle.popleft(), left.take(count)
                reference = actor.some.remote(work, [jobs[i] for i in given], home, self.rounds)
                busy[reference] = actor, given, time.perf_counter()
            (reference,), _ = self.ray.wait([*busy], num_returns=1)
            actor, given, began = busy.pop(reference)
            try:
                made = self.ray.get(reference)
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except self.ray.exceptions.RayError as error:
                idle.append(self._instead(actor))
                if (number := left.died(given)) is not None:
                    yield number, lost(error)
                continue
            idle.append(actor)
            left.done(given, len(made), time.perf_counter() - began)
            yield from zip(given, made, strict=False)

    def _start(self) -> int:
        """Start or join Ray, unless that is done; how many workers there are."""
        ray = self.ray
        if not ray.is_initialized():
            self._begin()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if self.gpus is None:
            self.gpus = float(any(node.get("GPU") for node in nodes))
        room = sum(min(fits(node, "CPU", self.cpus), fits(node, "GPU", self.gpus)) for node in nodes)
        if room < max(1, self.workers):
            most = f"{max((n.get('CPU', 0) for n in nodes), default=0):g} CPUs and "
            most += f"{max((n.get('GPU', 0) for n in nodes), default=0):g} GPUs on its largest machine"
            asked = f"{max(1, self.workers)} with --cpus {self.cpus:g} and --gpus {self.gpus:g}"
            raise ValueError(f"workers must fit in the cluster, which has {most}; got {asked}; lower one of them")
        return self.workers or room

    def _begin(self) -> None:
        """Join the cluster that stands at the address, or start one for this process alone, without a word."""
        logging.getLogger("ray").setLevel(logging.ERROR)
        own: dict[str, Any] = {
            "num_cpus": math.ceil(self.workers * self.cpus) or None,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
        reach(self.address)
        before = signal.getsignal(signal.SIGTERM)
        try:
            self.ray.init(
                self.address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                **({} if self.address else own),
            )
        except (OSError, RuntimeError, ValueError) as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            asked = f"--address {STANDS}; got {self.address!r}" if self.address else "ray must start here; got"
            raise ValueError(f"{asked}: {why}") from error
        finally:  # Ray's own handler would end the process with a stack of C++
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, self._end if before in (None, signal.SIG_DFL) else before)

    def _end(self, *_: object) -> None:
        """At SIGTERM: leave as at Ctrl-C, as some processes of Ray outlive one that ends at once."""
        self.ended = True
        raise KeyboardInterrupt

    def _worker(self) -> Any:  # noqa: ANN401 (Ray's handle)
        """A new worker."""
        found = Circumstances.here(max(1, int(self.cpus)))
        return self.ray.remote(Worker).options(num_cpus=self.cpus, num_gpus=self.gpus).remote(found)

    def _instead(self, actor: Any) -> Any:  # noqa: ANN401 (Ray's handle)
        """A new worker in the place of one that died."""
        with contextlib.suppress(Exception):  # it may live: then it was interrupted
            self.ray.kill(actor)
        self.actors.remove(actor)
        self.actors.append(self._worker())
        return self.actors[-1]


def lost(error: BaseException) -> WorkerDiedError:
    """What is said of a job that ended its workers."""
    how = "memory ran out" if "Memory" in type(error).__name__ else "it crashed, or memory ran out"
    return WorkerDiedError(f"the worker process ended {DEATHS} times while it did this job alone: {how}")
