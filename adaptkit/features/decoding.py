"""Items decoded ahead of the tower: in threads or, where thousands of pictures are to come, in processes besides."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, cast

from torch import Tensor

from adaptkit.features.cohorts import Decoded, Row
from adaptkit.features.datasets import picture_file_of
from adaptkit.features.decoder_pool import Helpers
from adaptkit.features.items import Source
from adaptkit.features.names import row_id, view_seed
from adaptkit.features.needs import Need
from adaptkit.features.parts import Part, usual
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.lane import Lane
from adaptkit.towers.preprocess import Preprocess
from adaptkit.towers.raw import Raw, normalised, raw_of

CHUNK = 8  # pictures that are handed over at once
ENOUGH = 2048  # pictures for which processes are started
CORES = 3  # of a machine on which processes pay
SLOW = 1 / 400  # seconds of a row in the tower; threads keep up with one that takes longer
THREADS = 8  # more of them wait for one another


@dataclass(frozen=True)
class Eyes:
    """What of a backbone decides on pixels."""

    preprocess: Preprocess


class Decoding:
    """Decodes the items of some parts, each once for all that is wanted of it. Close it.

    Where a need prepares images as all do, pixels stay bytes until a batch is complete; see `normalised`.

    Attributes:
        helpers: the processes, once there are some.
    """

    def __init__(self, source: Source, parts: Sequence[Part], count: int = 0) -> None:
        """Start with threads alone.

        Args:
            source: of the items.
            parts: whose rows they are to become.
            count: of pictures decoded at once; 0 for as many as there are cores.
        """
        self.source, self.parts, self.count = source, parts, count or cores()
        self.helpers: Helpers | None = None
        self.tried = False

    def help(self, left: int, rate: float, slots: int) -> None:
        """Start processes, once, if that pays. They prepare images for one tower, as all needs do.

        Args:
            left: rows that are still to come.
            rate: seconds of a row in the tower.
            slots: rows that may be decoded and not yet released.
        """
        if self.tried or not rate or self.count < CORES or left < ENOUGH or rate > SLOW:
            return
        self.tried = True
        raws = {raw_for(part.need, part.backbone) for part in self.parts}
        if len(raws) == 1 and (raw := raws.pop()) and picture_file_of(self.source, int(self.parts[0].items[0, 0])):
            with suppress(OSError):  # then threads must do
                self.helpers = Helpers(self.count, slots + 2 * self.count * CHUNK, raw)

    @property
    def ahead(self) -> int:
        """Rows that must be on their way so that all cores have something to do."""
        return 2 * self.count * (CHUNK if self.helpers else 1)

    def submit(self, items: Sequence[Sequence[Row]]) -> list[Future[list[Decoded]]]:
        """Begin to decode some rows, given item by item; they come in this order."""
        helpers, pool = self.helpers, decoders(os.getpid(), self.count)
        rows = [*chain.from_iterable(items)]
        if helpers is None or len(helpers.free) < len(rows):
            return [pool.submit(self.decode, some) for some in items]
        chunks = [rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK)]
        return [helpers.threads.submit(self._helped, c, [helpers.free.popleft() for _ in c]) for c in chunks]

    def decode(self, rows: Sequence[Row]) -> list[Decoded]:
        """Rows of one item decoded in this thread, of one reading, each under the key of its bytes.

        What enters several towers alike is made once. What a need of its own kind prepares gets the item anew, as it
        may change it.
        """
        made: dict[tuple[int, int, Hashable], tuple[str, Any]] = {}
        found, last, key, item = list[Decoded](), -1, "", None
        for row in rows:
            what = row.item, row.view, row.cohort.kind
            if what not in made:
                own = not harmless(row.cohort.need)
                if own or row.item != last:
                    key, item = self.source.open(row.item)
                last, made[what] = -1 if own else row.item, (key, self._prepare(row, key, item))
            name, ready = made[what]
            found.append(Decoded(row, row_id(name, row.view), ready))
        return found

    def _prepare(self, row: Row, key: str, item: Any) -> Any:  # noqa: ANN401 (an item, and what enters a tower)
        need, backbone = row.cohort.need, row.cohort.backbone
        raw = raw_for(need, backbone)
        eyes = backbone if raw is None else cast(Backbone, Eyes(raw))
        return need.prepare(item, eyes, row.view, view_seed(key, row.view))

    def batch(self, group: Sequence[Decoded], lane: Lane) -> Tensor | list[Any]:
        """What enters the tower at once, of decoded rows of one cohort."""
        ready, cohort = [one.ready for one in group], group[0].row.cohort
        if (raw := raw_for(cohort.need, cohort.backbone)) is None:
            return ready
        return lane.bring(lambda: normalised(ready, raw, cohort.backbone.device))

    def release(self, group: Sequence[Decoded]) -> None:
        """Let others have the memory of rows that have entered the tower."""
        if self.helpers:
            self.helpers.free.extend(one.slot for one in group if one.slot >= 0)

    def close(self) -> None:
        """End the processes."""
        if self.helpers:
            self.helpers.close()

    def _helped(self, rows: Sequence[Row], slots: Sequence[int]) -> list[Decoded]:
        """Rows that a process decoded, and those that it could not: they are decoded here, or meet the reason here.

        So are those whose bytes are others than were planned: a source may want to know.
        """
        helpers, files = cast(Helpers, self.helpers), [picture_file_of(self.source, row.item) for row in rows]
        each = zip(files, slots, rows, strict=True)
        asked = [(file, slot, row.view, row.cohort.need.augment) for file, slot, row in each if file]
        keys = iter(helpers.ask(asked) if asked else [])
        found = []
        for file, row, slot in zip(files, rows, slots, strict=True):
            key = next(keys) if file else ""
            name = row_id(key, row.view)
            if key and (name == row.planned).all():
                found.append(Decoded(row, name, helpers.slab[slot], slot))
            else:
                found.append(self.decode([row])[0]._replace(slot=slot))
        return found


def stays_raw(need: Need, backbone: Backbone) -> bool:
    """Whether images are prepared for a need as for all, and nothing computes with them before they are a batch."""
    mixed = need.views and need.augment == "augmix"
    return usual(need) and not mixed and type(backbone.preprocess) is Preprocess


def raw_for(need: Need, backbone: Backbone) -> Raw | None:
    """The preprocessing up to where it normalises, where that may wait for the batch."""
    return raw_of(backbone.preprocess) if stays_raw(need, backbone) else None


def harmless(need: Need) -> bool:
    """Whether preparing an item leaves it as it is: others then take the same. A plugin's own way may change it."""
    return type(need).prepare.__module__.startswith("adaptkit.")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def decoders(process: int, count: int = 0) -> ThreadPoolExecutor:
    """The threads that decode; a forked process has none of its parent's."""
    return ThreadPoolExecutor(max_workers=min(THREADS, count or cores()), thread_name_prefix=f"decoder-{process}")
