"""Items decoded ahead of the tower: in threads or, where thousands of pictures are to come, in processes besides."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple, cast

import numpy as np
from torch import Tensor

from adaptkit.features.datasets import picture_file_of
from adaptkit.features.decoder_pool import Helpers
from adaptkit.features.items import Source
from adaptkit.features.names import row_id, view_seed
from adaptkit.features.needs import Need
from adaptkit.features.parts import Part
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.lane import Lane
from adaptkit.towers.preprocess import Preprocess
from adaptkit.towers.raw import normalised, raw_of

CHUNK = 8  # pictures that are handed over at once
ENOUGH = 2048  # pictures for which processes are started
CORES = 3  # of a machine on which processes pay
SLOW = 1 / 400  # seconds of a row in the tower; threads keep up with one that takes longer
THREADS = 8  # more of them wait for one another


class Decoded(NamedTuple):
    """One row before the tower: its place in the part, the id of the bytes that were decoded, and what enters."""

    place: int
    id: np.ndarray
    ready: Any
    slot: int = -1  # of shared memory that holds it


@dataclass(frozen=True)
class Eyes:
    """What of a backbone decides on pixels."""

    preprocess: Preprocess


class Decoding:
    """Decodes the items of one part. Close it.

    Where a need prepares images as all do, pixels stay bytes until a batch is complete; see `normalised`.

    Attributes:
        helpers: the processes, once there are some.
    """

    def __init__(self, source: Source, part: Part, backbone: Backbone, count: int = 0) -> None:
        """Start with threads alone.

        Args:
            source: of the items.
            part: whose rows they are to become.
            backbone: whose preprocessing they get.
            count: of pictures decoded at once; 0 for as many as there are cores.
        """
        self.source, self.part, self.backbone, self.count = source, part, backbone, count or cores()
        self.raw = raw_of(backbone.preprocess) if stays_raw(part.need, backbone) else None
        self.helpers: Helpers | None = None
        self.tried = False

    def help(self, left: int, rate: float, slots: int) -> None:
        """Start processes, once, if that pays.

        Args:
            left: rows that are still to come.
            rate: seconds of a row in the tower.
            slots: rows that may be decoded and not yet released.
        """
        if self.tried or not rate or self.raw is None or self.count < CORES or left < ENOUGH or rate > SLOW:
            return
        self.tried = True
        if picture_file_of(self.source, self.part.items[0][0]) is not None:
            with suppress(OSError):  # then threads must do
                self.helpers = Helpers(self.count, slots + 2 * self.count * CHUNK, self.raw, self.part.need.augment)

    @property
    def ahead(self) -> int:
        """Rows that must be on their way so that all cores have something to do."""
        return 2 * self.count * (CHUNK if self.helpers else 1)

    def submit(self, places: Sequence[int]) -> list[Future[list[Decoded]]]:
        """Begin to decode some rows of the part; they come in this order."""
        helpers, pool = self.helpers, decoders(os.getpid(), self.count)
        if helpers is None or len(helpers.free) < len(places):
            return [pool.submit(self.decode, some) for some in self._alike(places)]
        chunks = [places[at : at + CHUNK] for at in range(0, len(places), CHUNK)]
        return [helpers.threads.submit(self._helped, c, [helpers.free.popleft() for _ in c]) for c in chunks]

    def decode(self, places: Sequence[int]) -> list[Decoded]:
        """Rows decoded in this thread, each under the key of its bytes; an item that follows itself is opened once."""
        found, last, opened = list[Decoded](), -1, ("", None)
        for place in places:
            i, view = self.part.items[place]
            if i != last:
                last, opened = i, self.source.open(i)
            key, item = opened
            eyes = self.backbone if self.raw is None else cast(Backbone, Eyes(self.raw))
            ready = self.part.need.prepare(item, eyes, view, view_seed(key, view))
            found.append(Decoded(place, row_id(key, view), ready))
        return found

    def batch(self, group: Sequence[Decoded], lane: Lane) -> Tensor | list[Any]:
        """What enters the tower at once, of decoded rows."""
        ready = [one.ready for one in group]
        if (raw := self.raw) is None:
            return ready
        return lane.bring(lambda: normalised(ready, raw, self.backbone.device))

    def release(self, group: Sequence[Decoded]) -> None:
        """Let others have the memory of rows that have entered the tower."""
        if self.helpers:
            self.helpers.free.extend(one.slot for one in group if one.slot >= 0)

    def close(self) -> None:
        """End the processes."""
        if self.helpers:
            self.helpers.close()

    def _alike(self, places: Sequence[int]) -> Iterator[list[int]]:
        """Views of one item together, where that spares opening it again; an item may change that a need prepares."""
        for _, some in groupby(places, lambda place: self.part.items[place][0] if self.raw else place):
            alike = list(some)
            yield from (alike[at : at + CHUNK] for at in range(0, len(alike), CHUNK))

    def _helped(self, places: Sequence[int], slots: Sequence[int]) -> list[Decoded]:
        """Rows that a process decoded, and those that it could not: they are decoded here, or meet the reason here.

        So are those whose bytes are others than were planned: a source may want to know.
        """
        helpers, items = cast(Helpers, self.helpers), [self.part.items[place] for place in places]
        files = [picture_file_of(self.source, i) for i, _ in items]
        wanted = [(file, view, slot) for file, (_, view), slot in zip(files, items, slots, strict=True) if file]
        keys = iter(helpers.ask(wanted) if wanted else [])
        found = []
        for file, place, (_, view), slot in zip(files, places, items, slots, strict=True):
            key = next(keys) if file else ""
            name = row_id(key, view)
            if key and (name == self.part.ids[place]).all():
                found.append(Decoded(place, name, helpers.slab[slot], slot))
            else:
                found.append(self.decode([place])[0]._replace(slot=slot))
        return found


def stays_raw(need: Need, backbone: Backbone) -> bool:
    """Whether images are prepared for a need as for all, and nothing computes with them before they are a batch."""
    usual = type(need).prepare is Need.prepare and type(need).collate is Need.collate
    mixed = need.views and need.augment == "augmix"
    return need.visual and usual and not mixed and type(backbone.preprocess) is Preprocess


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def decoders(process: int, count: int = 0) -> ThreadPoolExecutor:
    """The threads that decode; a forked process has none of its parent's."""
    return ThreadPoolExecutor(max_workers=min(THREADS, count or cores()), thread_name_prefix=f"decoder-{process}")
