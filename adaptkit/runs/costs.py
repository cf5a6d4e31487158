"""What a cell costs: seconds without those of extraction, what extraction took, and memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from adaptkit.features.cache import CachedRows
from adaptkit.features.composites import part_read
from adaptkit.features.items import Images
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from adaptkit.methods.unlabelled import pool_reads
from adaptkit.runs.evaluation_sets import EvaluationSet


def peak_memory() -> float:
    """Most memory that this process has held so far, MB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1024)


@dataclass
class Clock:
    """Seconds between laps, without those that the cache spent extracting."""

    images: Images
    started: float = field(default_factory=time.perf_counter)
    extracted: float = 0.0

    def __post_init__(self) -> None:
        self.extracted = self._extracting()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now, extracting = time.perf_counter(), self._extracting()
        took = now - self.started - (extracting - self.extracted)
        self.started, self.extracted = now, extracting
        return took

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Seconds that belong to no lap."""
        began = time.perf_counter()
        yield
        self.started += time.perf_counter() - began

    def _extracting(self) -> float:
        return self.images.rows.cache.seconds if isinstance(self.images.rows, CachedRows) else 0.0


def extraction_cost(adapted: Method, task: Task, tests: Sequence[EvaluationSet]) -> float:
    """Seconds that computing the features a method reads took, whenever that was and whoever asked first.

    Test images are those of the task's own test set.
    """
    val = task.val if adapted.grid() else None
    reads = [
        (task.support, adapted.all_needs(of_support=True)),
        (val, adapted.all_needs()),
        (tests[0].images, adapted.all_needs()),
        (task.pool, pool_reads(adapted)),
        (task.gallery, [*adapted.gallery_needs().values()]),
    ]
    return sum(
        images.rows.cache.cost(*part_read(images.rows.source, need), len(images))
        for images, needs in reads
        if images is not None and isinstance(images.rows, CachedRows)
        for need in set(needs)
    )
