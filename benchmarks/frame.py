"""What a case is made of: sizes, data, a clock, and the row that it fills."""

from __future__ import annotations

import ctypes
import importlib
import pkgutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from adaptkit import Task, unit

Result = TypeVar("Result")


@dataclass(frozen=True)
class Size:
    """``C`` classes with ``K`` support images each, width ``D``, ``N`` validation images and as many test images."""

    C: int
    K: int
    D: int
    N: int

    @property
    def S(self) -> int:  # noqa: N802 (the letter of the axis)
        """Support images."""
        return self.C * self.K


SIZES = {"small": Size(5, 2, 16, 60), "C100": Size(100, 16, 512, 5000), "C1000": Size(1000, 16, 512, 10000)}


@dataclass(frozen=True)
class Row:
    """Seconds of both ways for the whole of a task.

    Attributes:
        plain: the paper's way.
        ours: adaptkit's.
        timed: how much of the paper's way was run.
        flops: of the products that no way can do without.
        held: most memory that each way held beyond what there was, GB; zeros where nobody looked.
    """

    plain: float
    ours: float
    timed: str
    flops: float
    held: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Case:
    """A comparison, and how many times faster we want to be, by size."""

    run: Callable[[Size], Row]
    targets: dict[str, float]


CASES: dict[str, Case] = {}


def clock() -> float:
    """Seconds: of the wall or, with one thread, of the processor, which others on the machine do not slow so much."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def case(name: str, **targets: float) -> Callable[[Callable[[Size], Row]], Callable[[Size], Row]]:
    """Register a function as a case: ``@case("tip-adapter search", C100=100, C1000=300)``."""

    def register(run: Callable[[Size], Row]) -> Callable[[Size], Row]:
        CASES[name] = Case(run, targets)
        return run

    return register


def cases() -> dict[str, Case]:
    """All cases of all files in this folder."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.name.startswith("__"):
            importlib.import_module(f"benchmarks.{module.name}")
    return CASES


def timed(work: Callable[[], Result], times: int = 1) -> tuple[float, Result]:
    """The least of some times, seconds of `clock`, and the result."""
    took = []
    for _ in range(times):
        began = clock()
        result = work()
        took.append(clock() - began)
    return min(took), result


def measured(work: Callable[[], Result]) -> tuple[float, float, Result]:
    """Seconds of `clock`, GB that were held at most beyond what there was (0 where nobody tells), and the result."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed goes back
        reset.write_text("5")  # the peak begins anew
        before = resident(status, "VmRSS")
    except (OSError, AttributeError):
        before = 0
    seconds, result = timed(work)
    if not before:
        return seconds, 0.0, result
    return seconds, max(0.0, (resident(status, "VmHWM") - before) / 1e6), result


def resident(status: Path, what: str) -> int:
    """A line of a process's status, kB."""
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(what))


@cache
def gemm_rate() -> float:
    """Floating point operations per second of a product of matrices, as fast as it came in this run."""
    a = torch.rand(2048, 2048)
    return 2 * 2048**3 / timed(lambda: a @ a, 10)[0]


def features(size: Size, seed: int = 0) -> tuple[Task, Tensor, Tensor]:
    """A task with validation images, and test images with labels, of which zero-shot gets about half right."""
    draw = torch.Generator().manual_seed(seed)

    def noise(count: int, share: float) -> Tensor:
        return share * torch.randn(count, size.D, generator=draw) / size.D**0.5

    text = unit(noise(size.C, 1.0) + noise(1, 2.0))
    centres = unit(text + noise(size.C, 0.5))

    def images(labels: Tensor) -> tuple[Tensor, Tensor]:
        return unit(centres[labels] + noise(len(labels), 1.2)), labels

    support = images(torch.arange(size.C).repeat_interleave(size.K))
    val, test = (images(torch.arange(size.N) % size.C) for _ in range(2))
    return Task.from_arrays(support, text, val=val), *test


def ensure_close(ours: Tensor, plain: Tensor, room: float, what: str) -> None:
    """Both ways must give the same numbers within `room`."""
    off = float((ours - plain).abs().max())
    if off > room:
        raise ValueError(f"{what} must be the same both ways within {room:.2g}; got {off:.2g} apart")


def ensure_count(ours: int, logits: Tensor, labels: Tensor, room: float, what: str) -> None:
    """Right answers must be as many both ways, but for images whose two best logits are within `room`."""
    plain, best = int((logits.argmax(1) == labels).sum()), logits.topk(2).values
    ties = int((best[:, 0] - best[:, 1] < room).sum())
    if abs(ours - plain) > ties:
        raise ValueError(f"{what} must have {plain} right answers, give or take {ties} near-ties; got {ours}")
