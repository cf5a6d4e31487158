"""Compute the rows that a table lacks: decode ahead, answer batch by batch, commit what a kill must not lose."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from adaptkit.features.answering import Answering
from adaptkit.features.cohorts import Cohort, Decoded, Held, Passing, Pending, Row
from adaptkit.features.decoding import Decoding
from adaptkit.features.items import Source
from adaptkit.features.needs import Need
from adaptkit.features.parts import Part
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.lane import Lane

COMMIT = 2.0  # seconds of work that a kill may lose
CLAIM = 32  # rows claimed at once
POLL = 0.05  # seconds between looks at what others compute
DECODED = 1 / 250  # seconds of a core that decodes a photograph
TRIALS = 3  # passes of one row at most, before anything is known of a tower


class Pace:
    """How many rows a pass may have so that it takes no longer than a kill may cost, learned from the passes before."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.rates: list[float] = []  # seconds per row; the best of the last three is believed

    @property
    def rate(self) -> float:
        """Seconds that a row takes in the tower, 0 before anything is known."""
        return min(self.rates[-3:], default=0.0)

    @property
    def rows(self) -> int:
        """Rows of the next pass."""
        return max(1, min(self.most, int(COMMIT / self.rate))) if self.rate else min(self.most, CLAIM)


@dataclass(frozen=True)
class Extraction:
    """How rows are computed.

    Attributes:
        answering: the plugins that may compute them.
        dtype: of stored rows.
        batch_size: rows in one forward pass, at most.
        progress: show a bar.
        count: told what was computed, by name, rows and seconds.
        decoders: pictures decoded at once; 0 for as many as there are cores.
        paces: of the needs that share pixels, by tower.
    """

    answering: Answering
    dtype: str
    batch_size: int
    progress: bool
    count: Callable[[str, int, float], None]
    decoders: int = 0
    paces: dict[tuple[tuple[Need, ...], Backbone], Pace] = field(default_factory=dict)

    def complete(self, source: Source, parts: Sequence[Part]) -> None:
        """Compute and store the rows of some parts that are missing, each under the key of the bytes it was made of.

        An item is opened once for all parts that read pixels. A table's lock is held only while rows are appended.
        Rows are claimed before they are computed: those that another process has claimed are waited for, and computed
        if it dies.
        """
        lacking = [part for part in parts if part.missing().any()]
        seen = [part for part in lacking if part.need.visual]
        for together in [seen, *([part] for part in lacking if not part.need.visual)]:
            if together:
                Work(self, source, together).run()

    def pace(self, cohort: Cohort) -> Pace:
        """How many rows enter a tower together."""
        needs = tuple(part.need for part in cohort.parts)
        most = min(need.batch or self.batch_size for need in needs)
        return self.paces.setdefault((needs, cohort.backbone), Pace(most))


class Work:
    """The extraction of some parts, by this process beside others.

    Passes of pixels are as short as a kill may cost. Those of text are of one size, whatever the clock says: the last
    digits of a sentence's row depend on the longest beside it.
    """

    def __init__(self, how: Extraction, source: Source, parts: Sequence[Part]) -> None:
        self.how, self.source, self.parts = how, source, parts
        self.pending = Pending(parts)
        self.visual, self.threads = all(part.need.visual for part in parts), torch.get_num_threads()
        self.paces = set[Pace]()
        self.decoding, self.lane = Decoding(source, parts, how.decoders), Lane(parts[0].backbone.device)
        self.claimed: dict[Part, set[int]] = {part: set() for part in parts}

    def run(self) -> None:
        """Compute what can be claimed; then look after the rest until all is stored, or was computed here."""
        title = f"{self.source.name} · {', '.join(dict.fromkeys(part.name for part in self.parts))}"
        hidden = not self.how.progress
        with tqdm(total=len(self.pending), desc=title, unit="row", disable=hidden, leave=False) as bar:
            try:
                while self.pending:
                    idle = not self._round(bar)
                    self.pending.retry()
                    if idle and self.pending:
                        time.sleep(POLL)
            finally:
                torch.set_num_threads(self.threads)
                self.decoding.close()
                for part, places in self.claimed.items():
                    self._release(part, places)

    def _round(self, bar: tqdm) -> int:
        """Compute all that can be claimed now; how many rows that were."""
        held: list[Held] = []
        flying = deque[Passing]()
        began = last = time.perf_counter()
        done = 0
        with closing(self._passes()) as passes:
            for cohort, group in passes:
                flying.append(self._enter(cohort, group))
                bar.update(len(group) * len(cohort.parts))
                done += len(group)
                if len(flying) > self.lane.late:
                    held.append(self._land(flying.popleft()))
                now = time.perf_counter()
                if held and now - began + (now - last) > COMMIT:  # the next pass would be too much
                    self._commit(held, now - began)
                    held, began = [], flying[0].began if flying else time.perf_counter()
                last = time.perf_counter()
        held += [self._land(one) for one in flying]
        if held:
            self._commit(held, time.perf_counter() - began)
        return done

    def _enter(self, cohort: Cohort, group: list[Decoded]) -> Passing:
        """Let the tower begin with a batch; a device is not waited for. What shares a pass takes the same of it."""
        how, began, start = self.how.answering, time.perf_counter(), self.lane.mark()
        ready = self.decoding.batch(group, self.lane)
        self.decoding.release(group)
        rows, took, last = dict[Part, Callable[[], Tensor]](), dict[Part, float](), time.perf_counter()
        for part, answer in zip(cohort.parts, how.together(cohort.asks, cohort.backbone, ready), strict=True):
            rows[part] = self.lane.fetch(answer.to(getattr(torch, part.need.dtype or self.how.dtype)))
            took[part], last = time.perf_counter() - last, time.perf_counter()
        sharing = [cohort.parts[k] for k in how.sharing(cohort.asks, cohort.backbone)]
        took |= dict.fromkeys(sharing, sum(took[part] for part in sharing) / max(1, len(sharing)))
        end = self.lane.mark()
        return Passing(group, began, rows, lambda: self.lane.between(start, end), took)

    def _land(self, one: Passing) -> Held:
        """The rows of a batch, once they are there; how long the tower took is learned, without what it waited for."""
        rows = {part: wait() for part, wait in one.rows.items()}
        if self.visual:
            self.how.pace(one.group[0].row.cohort).rates.append(one.seconds() / len(one.group))
            if self.lane.device.type == "cpu":
                self._share_cores()
        return Held(one.group, rows, one.shares)

    def _share_cores(self) -> None:
        """One thread for towers that keep up with the decoders so: threads that wait do it busily, on their cores."""
        work = sum(pace.rate for pace in self.paces) * torch.get_num_threads()  # seconds of a core for an item, at most
        torch.set_num_threads(1 if work * self.decoding.count < DECODED else self.threads)

    def _commit(self, held: list[Held], took: float) -> None:
        spent = sum(sum(some.took.values()) for some in held)
        for part in dict.fromkeys(part for some in held for part in some.rows):
            mine = [some for some in held if part in some.rows]
            ones = [one for some in mine for one in some.group]
            share = took * sum(some.took[part] for some in mine) / spent
            with part.table.writing():
                part.table.append(
                    np.stack([one.id for one in ones]), torch.cat([some.rows[part] for some in mine]).numpy(), share
                )
            self._release(part, {one.row.places[one.row.cohort.parts.index(part)] for one in ones})
            self.how.count(part.name, len(ones), share)

    def _release(self, part: Part, places: set[int]) -> None:
        part.table.release(part.ids[sorted(places)])
        self.claimed[part] -= places

    def _passes(self) -> Generator[tuple[Cohort, list[Decoded]]]:
        """What enters a tower at once: a batch, or less if that would take too long."""
        groups: dict[Cohort, tuple[float, list[Decoded]]] = {}  # when it was begun, and what it has
        with closing(self._decoded()) as stream:
            for one in stream:
                cohort, pace = one.row.cohort, self.how.pace(one.row.cohort)
                self.paces.add(pace)
                if self.visual and not pace.rates:
                    self._learn(cohort, pace, one)
                began, group = groups.setdefault(cohort, (time.perf_counter(), []))
                group.append(one)
                longer = time.perf_counter() - began + pace.rate * (len(group) + 1)
                if len(group) == pace.most or (self.visual and longer > COMMIT):
                    yield cohort, groups.pop(cohort)[1]
            for cohort, (_, group) in groups.items():
                yield cohort, group

    def _learn(self, cohort: Cohort, pace: Pace, one: Decoded) -> None:
        """See how long the tower takes for one row; the first time is not to be believed if it was long."""
        for _ in range(TRIALS):
            took = self.how.answering.trial(cohort.asks, cohort.backbone, self.decoding.batch([one], self.lane))
            pace.rates.append(took)
            if pace.rate * pace.most <= COMMIT or took > COMMIT / 8:
                return

    def _decoded(self) -> Generator[Decoded]:
        """Rows in the order of the parts, decoded ahead while the tower works; of text there is nothing to decode."""
        while self.pending and not self.visual:
            for rows in self._claim():
                yield from self.decoding.decode(rows)
        ahead, decoding, waiting = deque[Future[list[Decoded]]](), self.decoding, 0
        try:
            while self.pending or ahead:
                rate, most = min((p.rate for p in self.paces), default=0.0), sum(pace.most for pace in self.paces)
                decoding.help(len(self.pending), rate, slots=3 * most + CLAIM)
                while self.pending and waiting < max(2 * self._most(), decoding.ahead):
                    items = self._claim()
                    ahead += decoding.submit(items)
                    waiting += sum(map(len, items))
                if ahead:
                    yield from (some := ahead.popleft().result())
                    waiting -= len(some)
        finally:
            for future in ahead:
                future.cancel()

    def _most(self) -> int:
        """Rows of the next pass, as far as anything is known of it."""
        return max((pace.rows for pace in self.paces), default=min(self.how.batch_size, CLAIM))

    def _claim(self) -> list[list[Row]]:
        """The next few rows that are still to be computed, and by nobody else, item by item."""
        items = self.pending.claim(max(CLAIM, *(part.need.batch for part in self.parts)))
        for row in chain.from_iterable(items):
            for part, place in zip(row.cohort.parts, row.places, strict=True):
                self.claimed[part].add(place)
        return items
