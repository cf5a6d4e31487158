"""Who answers ``extract``, the core or a plugin: found out before a table is opened, so that its key can say so."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from adaptkit.features.needs import Need
from adaptkit.features.passes import Shared, sharable
from adaptkit.io import code
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.precision import Precision, autocast

KIT = "adaptkit"  # the name under which the core itself is a plugin
Ask = tuple[Need, str]  # what is asked for, and which plugin answered for an empty image; "" for any


@dataclass
class Answering:
    """The plugins that may answer ``extract``, in the order in which they are asked.

    Attributes:
        hook: pluggy's relay.
        precision: of the towers' arithmetic.
    """

    hook: Any
    precision: Precision

    def __post_init__(self) -> None:
        self._shared: dict[tuple[tuple[Ask, ...], Backbone], Shared] = {}
        self._asked: list[Any] = []
        self._known: dict[tuple[Need, Backbone], list[str]] = {}

    def by(self, need: Need, backbone: Backbone) -> list[str]:
        """Who answers for a need, for a table's key: the plugin's name, with the digest of its code but for the core's.

        A row that shows nothing is given to the plugins until one answers; what they said is remembered while they
        stay. The core's own code is that of the need and of the tower, which are in the key anyway.
        """
        impls = self._impls()
        if impls != self._asked:
            self._asked, self._known = impls, {}
        others = [impl for impl in impls if impl.plugin_name != KIT]
        if not others or not need.visual:
            return [KIT]
        if (need, backbone) not in self._known:
            blank = need.blank(backbone)[None]
            answers = (i for i in others if self.call(i, need, backbone, blank) is not None)
            found = next(answers, None)
            self._known[need, backbone] = [KIT] if found is None else [found.plugin_name, _digest(found)]
        return self._known[need, backbone]

    def ask(self, need: Need, backbone: Backbone, ready: Sequence[Any] | Tensor, expected: str = "") -> Tensor:
        """Rows of B prepared items from the first plugin that answers, ``(B, ...)``, float32.

        Plugins are asked of pixels alone; a need of text computes itself, in full precision.

        Raises:
            ValueError: for an answer that is no tensor of B rows, or by another plugin than the one `expected`.
        """
        return next(self.together([(need, expected)], backbone, ready))

    def together(self, asks: Sequence[Ask], backbone: Backbone, ready: Sequence[Any] | Tensor) -> Iterator[Tensor]:
        """What `ask` gives for each of some needs that take the same pixels, one after another.

        Those that only read share one pass of the tower: equal rows, bit for bit, as is seen of the first image.
        """
        batch = _batch(asks, backbone, ready)
        shared = self._sharing(asks, backbone, batch[:1] if asks[0][0].visual else batch)
        lent = shared.lend(backbone, batch)
        for number, (need, expected) in enumerate(asks):
            alone = need.visual and number not in lent  # it may write to what it is given
            own = batch.clone() if alone and len(asks) > 1 else batch
            yield self._rows(need, backbone, own, expected, lent.get(number))

    def sharing(self, asks: Sequence[Ask], backbone: Backbone) -> tuple[int, ...]:
        """Which of some needs share passes, by number, where they have met."""
        return self._shared.get(((*asks,), backbone), Shared()).members

    def trial(self, asks: Sequence[Ask], backbone: Backbone, ready: Sequence[Any] | Tensor) -> float:
        """Let the plugins that answer do so for prepared items, and forget what they say: the seconds it takes."""
        batch = _batch(asks, backbone, ready)
        shared, impls = self._sharing(asks, backbone, batch[:1]), {impl.plugin_name: impl for impl in self._impls()}
        began = time.perf_counter()
        lent = shared.lend(backbone, batch)
        for number, (need, by) in enumerate(asks):
            if by in impls and isinstance(
                rows := self.call(impls[by], need, backbone, batch, lent.get(number)), Tensor
            ):
                rows.to("cpu")  # waits for a GPU
        return time.perf_counter() - began

    @torch.no_grad()
    def call(self, impl: Any, need: Need, backbone: Backbone, batch: Tensor, lent: Backbone | None = None) -> object:  # noqa: ANN401 (pluggy's)
        """What one plugin answers, ``None`` for nothing; the core computes with what it is lent."""
        own = lent if lent is not None and impl.plugin_name == KIT else backbone
        given = {"need": need, "backbone": own, "pixels": batch.to(backbone.device)}
        with autocast(self.precision, backbone.device), backbone.unaltered():
            return impl.function(*(given[name] for name in impl.argnames))

    @torch.no_grad()  # not inference_mode: methods backpropagate through operations on these rows
    def _rows(self, need: Need, backbone: Backbone, batch: Any, expected: str, lent: Backbone | None) -> Tensor:  # noqa: ANN401 (pixels, or tokens)
        """What the first plugin that answers gives for a batch."""
        if not need.visual:
            return need.compute(backbone, batch).float()
        rows, by = None, ""
        for impl in self._impls():
            rows, by = self.call(impl, need, backbone, batch, lent), impl.plugin_name
            if rows is not None:
                break
        if expected and isinstance(rows, Tensor) and by != expected:
            raise ValueError(
                f"extract must be answered by one plugin, {expected!r} for an empty image; got {by!r} for {need}; "
                f"let a plugin answer for all images or for none"
            )
        if len(found := _tensor(rows, need)) != len(batch):
            raise ValueError(f"extract must return one row per image, {len(batch)}; got {len(found)} for {need}")
        return found.float()

    def _sharing(self, asks: Sequence[Ask], backbone: Backbone, one: Tensor) -> Shared:
        """Which needs share passes, found out of one image when they first meet; those of plugins share none."""
        core = next((impl for impl in self._impls() if impl.plugin_name == KIT), None)
        own = {number: need for number, (need, by) in enumerate(asks) if by == KIT and need.visual}
        if core is None or len(own) < 2:
            return Shared()
        key = (*asks,), backbone
        if key not in self._shared:

            def compute(need: Need, lent: Backbone, pixels: Tensor) -> Tensor:
                return _tensor(self.call(core, need, backbone, pixels, lent), need)

            self._shared[key] = sharable(own, backbone, one, compute)
        return self._shared[key]

    def _impls(self) -> list[Any]:
        impls = self.hook.extract.get_hookimpls()[::-1]
        if odd := [impl.plugin_name for impl in impls if impl.hookwrapper or impl.wrapper]:
            raise ValueError(
                f"extract must be answered, not wrapped; got a hookwrapper from plugin {odd[0]!r}; return rows or None"
            )
        return impls


def _batch(asks: Sequence[Ask], backbone: Backbone, ready: Sequence[Any] | Tensor) -> Any:  # noqa: ANN401 (pixels, or tokens)
    """What enters the tower, alike for all needs that are asked together; a tensor is a batch by now."""
    need = asks[0][0]
    batch = ready if isinstance(ready, Tensor) else need.collate(ready, backbone)
    return batch.to(backbone.device) if need.visual else batch


def _tensor(rows: object, need: Need) -> Tensor:
    if not isinstance(rows, Tensor):
        raise ValueError(f"extract must return a tensor; got {type(rows).__name__} for {need}")
    return rows


def _digest(impl: Any) -> str:  # noqa: ANN401 (pluggy's record of one plugin's function)
    """Digest of a plugin's modules: its own, and the one where its function was written."""
    own = impl.plugin.__name__ if isinstance(impl.plugin, ModuleType) else type(impl.plugin).__module__
    return code.of_modules({own, impl.function.__module__})


@cache
def code_of(*classes: type) -> str:
    """Digest of the code of some classes, computed once."""
    return code.of(*classes)
