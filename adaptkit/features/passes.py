"""One pass of pixels through a tower, from which several needs take what they want, each as if it had been alone.

A need says by `compute` what it wants: it taps points of the tower and encodes the pixels. While it does so it is lent
a backbone that encodes otherwise: it watches what the need asks (`Watch`), or answers from a pass that was made for
several of them (`OnePass`). Taps that only read are run on what left their points in that pass, in the same order; a
need whose taps change anything, or that encodes anything but the pixels as they are, computes alone.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adaptkit.features.needs import Need
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.points import Tap

PROJECTION = "image.projection"
Taps = Mapping[str, Tap]
Compute = Callable[[Need, Backbone, Tensor], Tensor]


@dataclass
class Watch:
    """What a need asks of a tower, noted while it computes alone.

    Attributes:
        backbone: that computes.
        pixels: which it may share.
        points: that were tapped.
        ends: where it took its embedding from: behind the projection, or before.
        reads: whether it only read, of a pass of these pixels.
    """

    backbone: Backbone
    pixels: Tensor
    points: set[str] = field(default_factory=set)
    ends: set[bool] = field(default_factory=set)
    reads: bool = True

    def lent(self) -> Backbone:
        """The backbone that notes what is asked of it."""
        return lend(self.backbone, self)

    @contextlib.contextmanager
    def taps(self, fns: Taps) -> Iterator[None]:
        """Tap, and note where and to what end."""
        self.points |= {*fns}
        with self.backbone.taps({name: self._noting(fn) for name, fn in fns.items()}):
            yield

    def encode_image(self, pixels: Tensor, *, project: bool = True, **more: Any) -> Tensor:  # noqa: ANN401 (a subclass's)
        """Encode, and note of what."""
        self.reads &= pixels is self.pixels and not more
        self.ends.add(project)
        return self.backbone.encode_image(pixels, project=project, **more)

    def _noting(self, fn: Tap) -> Tap:
        def tap(x: Tensor, out: Tensor) -> Tensor:
            before = out._version
            used = fn(x, out)
            self.reads &= used is out and out._version == before
            return used

        return tap


class OnePass:
    """One pass of some pixels, made when it is first asked for.

    Attributes:
        points: whose outputs are kept.
        ends: as in `Watch`.
    """

    def __init__(self, backbone: Backbone, pixels: Tensor, points: frozenset[str], ends: frozenset[bool]) -> None:
        self.backbone, self.pixels, self.points, self.ends = backbone, pixels, points, ends
        self.active: list[Taps] = []
        self.left: list[tuple[str, Tensor, Tensor]] = []  # point, input and output, in the order of the tower
        self.given: dict[bool, Tensor] = {}

    def lent(self) -> Backbone:
        """The backbone that answers from the pass."""
        return lend(self.backbone, self)

    @contextlib.contextmanager
    def taps(self, fns: Taps) -> Iterator[None]:
        """Run these on what left their points when the pixels are encoded."""
        self.active.append(fns)
        try:
            yield
        finally:
            self.active.remove(fns)

    def encode_image(self, pixels: Tensor, *, project: bool = True) -> Tensor:
        """The pass's own embedding; of other pixels, or with other taps, that of a pass of its own."""
        fns = {name for some in self.active for name in some}
        if pixels is not self.pixels or not fns <= self.points or project not in self.ends:
            with contextlib.ExitStack() as stack:
                for some in self.active:
                    stack.enter_context(self.backbone.taps(some))
                return self.backbone.encode_image(pixels, project=project)
        if not self.given:
            self._run()
        for name, x, out in self.left:
            for some in self.active:
                if name in some:
                    some[name](x, out)
        return self.given[project]

    def _run(self) -> None:
        both, pooled = len(self.ends) == 2, list[Tensor]()
        taps = {name: self._keeping(name) for name in self.points}
        with self.backbone.taps(taps), contextlib.ExitStack() as stack:
            if both and PROJECTION in self.backbone.points:
                stack.enter_context(self.backbone.taps({PROJECTION: lambda x, out: pooled.append(x) or out}))  # type: ignore[func-returns-value]
            out = self.backbone.encode_image(self.pixels, project=True in self.ends)
        self.given = {True: out, False: pooled[0] if pooled else out}

    def _keeping(self, name: str) -> Tap:
        def tap(x: Tensor, out: Tensor) -> Tensor:
            self.left.append((name, x, out))
            return out

        return tap


def lend(backbone: Backbone, how: Watch | OnePass) -> Backbone:
    """The same backbone, but for how it is tapped and encodes images."""
    lent = copy.copy(backbone)
    vars(lent).update(taps=how.taps, encode_image=how.encode_image)
    return lent


class Shared(NamedTuple):
    """Which of some needs share a pass, by number, and what of it they read between them."""

    members: tuple[int, ...] = ()
    points: frozenset[str] = frozenset()
    ends: frozenset[bool] = frozenset()

    def lend(self, backbone: Backbone, pixels: Tensor) -> dict[int, Backbone]:
        """What each of them computes with, by number: the same pass of some pixels for all."""
        if not self.members:
            return {}
        return dict.fromkeys(self.members, OnePass(backbone, pixels, self.points, self.ends).lent())


def sharable(needs: Mapping[int, Need], backbone: Backbone, pixels: Tensor, compute: Compute) -> Shared:
    """Find out which needs may share a pass: those whose rows of one image are then, bit for bit, those without.

    Args:
        needs: by number.
        backbone: that computes.
        pixels: of one image, ``(1, ...)``.
        compute: rows of some pixels as a need gets them from a backbone.
    """
    alone, seen = dict[int, Tensor](), dict[int, Watch]()
    for number, need in needs.items():
        own = pixels.clone()
        watch, unwritten = Watch(backbone, own), own._version
        alone[number] = compute(need, watch.lent(), own)
        if watch.reads and watch.ends and own._version == unwritten:
            seen[number] = watch
    while len(seen) > 1:
        watches = seen.values()
        points = frozenset(name for watch in watches for name in watch.points)
        shared = Shared((*seen,), points, frozenset(end for watch in watches for end in watch.ends))
        rows = dict[int, Tensor]()
        for number, lent in shared.lend(backbone, pixels).items():
            with contextlib.suppress(Exception):  # who enters the tower by other ways finds nothing, and is alone
                rows[number] = compute(needs[number], lent, pixels)
        same = {n: watch for n, watch in seen.items() if n in rows and equal_bits(rows[n], alone[n])}
        if len(same) == len(seen):
            return shared
        seen = same
    return Shared()


def equal_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same numbers of the same kind."""
    return a.dtype == b.dtype and torch.equal(a, b)
