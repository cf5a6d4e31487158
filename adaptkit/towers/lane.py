"""The way to a device and back beside what it computes; on a processor, which computes at once, there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Lane:
    """Batches go to a device while it computes those before, and answers come back while it computes those after.

    Attributes:
        late: batches that a device has before the answer to the first is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.beside = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.late = int(self.beside is not None)

    def bring(self, make: Callable[[], Tensor]) -> Tensor:
        """What a function makes on the device, from pinned memory, beside what is computed there."""
        if self.beside is None:
            return make()
        with torch.cuda.stream(self.beside):
            made = make()
        now = torch.cuda.current_stream(self.device)
        now.wait_stream(self.beside)
        made.record_stream(now)
        return made

    def mark(self) -> Any:  # noqa: ANN401 (an event of a device, or seconds)
        """Now, as what computes will come to it; see `between`."""
        if self.beside is None:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def between(self, start: Any, end: Any) -> float:  # noqa: ANN401 (as above)
        """Seconds from one mark to another, once what was computed between them has been fetched."""
        if self.beside is None:
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000

    def fetch(self, rows: Tensor) -> Callable[[], Tensor]:
        """Begin to copy rows from the device; the function that is returned waits for them."""
        if self.beside is None or rows.device.type != "cuda":
            here = rows.cpu()
            return lambda: here
        held = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
        held.copy_(rows, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))

        def wait() -> Tensor:
            done.synchronize()
            return held

        return wait
