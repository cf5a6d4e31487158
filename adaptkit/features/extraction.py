"""Compute the rows that a table lacks: decode ahead, answer batch by batch, commit what a kill must not lose."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from adaptkit.features.answering import Answering
from adaptkit.features.decoding import Decoded, Decoding
from adaptkit.features.items import Source
from adaptkit.features.needs import Need
from adaptkit.features.parts import Part
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.lane import Lane

COMMIT = 2.0  # seconds of work that a kill may lose
CLAIM = 32  # rows claimed at once
POLL = 0.05  # seconds between looks at what others compute


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


@dataclass
class Pass:
    """Rows on their way: what was decoded, when it entered the tower, and how its rows are got."""

    group: list[Decoded]
    began: float
    rows: Callable[[], Tensor]


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
        paces: of each need by each tower.
    """

    answering: Answering
    dtype: str
    batch_size: int
    progress: bool
    count: Callable[[str, int, float], None]
    decoders: int = 0
    paces: dict[tuple[Need, Backbone], Pace] = field(default_factory=dict)

    def complete(self, source: Source, part: Part, backbone: Backbone) -> None:
        """Compute and store the rows of a part that are missing, each under the key of the bytes it was made of.

        The table's lock is held only while rows are appended. Rows are claimed before they are computed: those that
        another process has claimed are waited for, and computed if it dies.
        """
        if part.missing().any():
            pace = self.paces.setdefault((part.need, backbone), Pace(part.need.batch or self.batch_size))
            Work(self, source, part, backbone, pace).run()


class Work:
    """The extraction of one part, by this process beside others.

    Passes of pixels are as short as a kill may cost. Those of text are of one size, whatever the clock says: the last
    digits of a sentence's row depend on the longest beside it.
    """

    def __init__(self, how: Extraction, source: Source, part: Part, backbone: Backbone, pace: Pace) -> None:
        self.how, self.source, self.part, self.backbone, self.pace = how, source, part, backbone, pace
        absent = np.flatnonzero(part.missing())
        _, first = np.unique(part.ids[absent], axis=0, return_index=True)  # equal images are one row
        self.pending = deque(absent[np.sort(first)].tolist())
        self.others: list[int] = []  # rows that somebody else had claimed or stored
        self.claimed: set[int] = set()
        self.decoding, self.lane = Decoding(source, part, backbone, how.decoders), Lane(backbone.device)
        self.landed = 0.0  # when the last answer came

    def run(self) -> None:
        """Compute what can be claimed; then look after the rest until all is stored, or was computed here."""
        title = f"{self.source.name} · {self.part.name}"
        hidden = not self.how.progress
        with tqdm(total=len(self.pending), desc=title, unit="row", disable=hidden, leave=False) as bar:
            try:
                while self.pending:
                    idle = not self._round(bar)
                    rest = np.array(self.others, int)
                    self.pending = deque(rest[self.part.table.missing(self.part.ids[rest])].tolist())
                    self.others = []
                    if idle and self.pending:
                        time.sleep(POLL)
            finally:
                self.decoding.close()
                self._release(self.claimed)

    def _round(self, bar: tqdm) -> int:
        """Compute all that can be claimed now; how many rows that were."""
        held: list[tuple[list[Decoded], Tensor]] = []
        flying = deque[Pass]()
        began = last = time.perf_counter()
        done = 0
        with closing(self._passes()) as passes:
            for group in passes:
                flying.append(self._enter(group))
                bar.update(len(group))
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

    def _enter(self, group: list[Decoded]) -> Pass:
        """Let the tower begin with a batch; a device is not waited for."""
        began, need = time.perf_counter(), self.part.need
        ready = self.decoding.batch(group, self.lane)
        self.decoding.release(group)
        rows = self.how.answering.ask(need, self.backbone, ready, self.part.by)
        return Pass(group, began, self.lane.fetch(rows.to(getattr(torch, need.dtype or self.how.dtype))))

    def _land(self, one: Pass) -> tuple[list[Decoded], Tensor]:
        """The rows of a batch, once they are there; how long they took since the last is learned."""
        rows, began, now = one.rows(), max(one.began, self.landed), time.perf_counter()
        if self.part.need.visual:
            self.pace.rates.append((now - began) / len(one.group))
        self.landed = now
        return one.group, rows

    def _commit(self, held: list[tuple[list[Decoded], Tensor]], took: float) -> None:
        ones = [one for group, _ in held for one in group]
        with self.part.table.writing():
            self.part.table.append(np.stack([one.id for one in ones]), torch.cat([r for _, r in held]).numpy(), took)
        self._release({one.place for one in ones})
        self.how.count(self.part.name, len(ones), took)

    def _release(self, places: set[int]) -> None:
        self.part.table.release(self.part.ids[sorted(places)])
        self.claimed = self.claimed - places

    def _passes(self) -> Generator[list[Decoded]]:
        """What enters the tower at once: a batch, or less if that would take too long."""
        with closing(self._decoded()) as stream:
            group, began = list[Decoded](), time.perf_counter()
            for one in stream:
                if self.part.need.visual and not self.pace.rates:
                    self._learn(one)
                group.append(one)
                longer = time.perf_counter() - began + self.pace.rate * (len(group) + 1)
                if len(group) == self.pace.most or (self.part.need.visual and longer > COMMIT):
                    yield group
                    group, began = [], time.perf_counter()
            if group:
                yield group

    def _learn(self, one: Decoded) -> None:
        """See how long the tower takes for one row; the first time is not to be believed if it was long."""
        for _ in range(3):
            began = time.perf_counter()
            self.how.answering.trial(self.part.need, self.backbone, self.decoding.batch([one], self.lane), self.part.by)
            self.pace.rates.append(time.perf_counter() - began)
            if self.pace.rate * self.pace.most <= COMMIT:
                return

    def _decoded(self) -> Generator[Decoded]:
        """Items in the order of the part, decoded ahead while the tower works; of text there is nothing to decode."""
        while self.pending and not self.part.need.visual:
            yield from [one for place in self._claim() for one in self.decoding.decode([place])]
        ahead, decoding, waiting = deque[Future[list[Decoded]]](), self.decoding, 0
        try:
            while self.pending or ahead:
                decoding.help(len(self.pending), self.pace.rate, slots=3 * self.pace.most + CLAIM)
                while self.pending and waiting < max(2 * self.pace.rows, decoding.ahead):
                    places = self._claim()
                    ahead += decoding.submit(places)
                    waiting += len(places)
                if ahead:
                    yield from (some := ahead.popleft().result())
                    waiting -= len(some)
        finally:
            for future in ahead:
                future.cancel()

    def _claim(self) -> list[int]:
        """The next few rows that are still to be computed, and by nobody else."""
        places = [self.pending.popleft() for _ in range(min(max(CLAIM, self.part.need.batch), len(self.pending)))]
        mine = self.part.table.claim(self.part.ids[places])
        got = [place for place, ok in zip(places, mine, strict=True) if ok]
        self.others += [place for place, ok in zip(places, mine, strict=True) if not ok]
        self.claimed |= set(got)
        return got
