"""Who answers ``extract``, the core or a plugin: found out before a table is opened, so that its key can say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from adaptkit.features.needs import Need
from adaptkit.io import code
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.precision import Precision, autocast

KIT = "adaptkit"  # the name under which the core itself is a plugin


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

    @torch.no_grad()  # not inference_mode: methods backpropagate through operations on these rows
    def ask(self, need: Need, backbone: Backbone, ready: Sequence[Any] | Tensor, expected: str = "") -> Tensor:
        """Rows of B prepared items from the first plugin that answers, ``(B, ...)``, float32.

        Plugins are asked of pixels alone; a need of text computes itself, in full precision.

        Raises:
            ValueError: for an answer that is no tensor of B rows, or by another plugin than the one `expected`.
        """
        batch, rows, by = collated(need, backbone, ready), None, ""
        if not need.visual:
            return need.compute(backbone, batch).float()
        for impl in self._impls():
            rows, by = self.call(impl, need, backbone, batch), impl.plugin_name
            if rows is not None:
                break
        if not isinstance(rows, Tensor):
            raise ValueError(f"extract must return a tensor; got {type(rows).__name__} for {need}")
        if expected and by != expected:
            raise ValueError(
                f"extract must be answered by one plugin, {expected!r} for an empty image; got {by!r} for {need}; "
                f"let a plugin answer for all images or for none"
            )
        if len(rows) != len(ready):
            raise ValueError(f"extract must return one row per image, {len(ready)}; got {len(rows)} for {need}")
        return rows.float()

    def trial(self, need: Need, backbone: Backbone, ready: Sequence[Any] | Tensor, by: str) -> None:
        """Let one plugin answer for prepared items, and forget what it says: to see how long it takes."""
        batch = collated(need, backbone, ready)
        for impl in self._impls():
            if impl.plugin_name == by and isinstance(rows := self.call(impl, need, backbone, batch), Tensor):
                rows.to("cpu")  # waits for a GPU

    @torch.no_grad()
    def call(self, impl: Any, need: Need, backbone: Backbone, batch: Tensor) -> object:  # noqa: ANN401 (pluggy's)
        """What one plugin answers, ``None`` for nothing."""
        given = {"need": need, "backbone": backbone, "pixels": batch.to(backbone.device)}
        with autocast(self.precision, backbone.device), backbone.unaltered():
            return impl.function(*(given[name] for name in impl.argnames))

    def _impls(self) -> list[Any]:
        impls = self.hook.extract.get_hookimpls()[::-1]
        if odd := [impl.plugin_name for impl in impls if impl.hookwrapper or impl.wrapper]:
            raise ValueError(
                f"extract must be answered, not wrapped; got a hookwrapper from plugin {odd[0]!r}; return rows or None"
            )
        return impls


def collated(need: Need, backbone: Backbone, ready: Sequence[Any] | Tensor) -> Any:  # noqa: ANN401 (as `collate`)
    """Prepared items as `compute` takes them; a tensor is a batch by now."""
    return ready if isinstance(ready, Tensor) else need.collate(ready, backbone)


def _digest(impl: Any) -> str:  # noqa: ANN401 (pluggy's record of one plugin's function)
    """Digest of a plugin's modules: its own, and the one where its function was written."""
    own = impl.plugin.__name__ if isinstance(impl.plugin, ModuleType) else type(impl.plugin).__module__
    return code.of_modules({own, impl.function.__module__})


@cache
def code_of(*classes: type) -> str:
    """Digest of the code of some classes, computed once."""
    return code.of(*classes)
