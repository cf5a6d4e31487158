"""The hooks a plugin may implement: five tables, one question, one announcement.

A *table* hook takes nothing and returns ``{name: thing}``; the kit merges the tables of all plugins once, at start.
The *question* is asked by the feature cache on a miss; the first plugin to answer wins. The *announcement* is made
after every finished cell of a run. Implement any subset, in one module, with ``@adaptkit.hookimpl``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

    from adaptkit.features.datasets import Splits
    from adaptkit.features.items import Images
    from adaptkit.features.needs import Need
    from adaptkit.methods.method import Method
    from adaptkit.runs.results import Result
    from adaptkit.towers.backbone import Backbone

hookspec = pluggy.HookspecMarker("adaptkit")
hookimpl = pluggy.HookimplMarker("adaptkit")


@hookspec
def methods() -> Mapping[str, type[Method]]:  # type: ignore[empty-body]
    """Ways to turn features into logits or scores."""


@hookspec
def prompts() -> Mapping[str, Callable[[Sequence[str], Splits], Sequence[Sequence[str]]]]:  # type: ignore[empty-body]
    """Ways to write sentences about classes: ``(classnames, splits) -> [[sentence, ...] per class]``."""


@hookspec
def supports() -> Mapping[str, Callable[..., tuple[Images, Images | None]]]:  # type: ignore[empty-body]
    """Ways to choose what is learned from: ``(task, train, val, *, shots, seed) -> (support, few-shot val)``.

    ``train`` and ``val`` are labelled `Images` (``val`` may be ``None``); ``task`` has everything but a support.
    """


@hookspec
def datasets() -> Mapping[str, Callable[..., Splits]]:  # type: ignore[empty-body]
    """Ways to read a dataset: ``(place) -> Splits``; the place is what follows the colon in ``folder:photos``."""


@hookspec
def backbones() -> Mapping[str, Callable[[str], Backbone]]:  # type: ignore[empty-body]
    """Ways to load a frozen backbone, by scheme: ``"hf"`` loads ``hf:openai/clip-vit-base-patch16``."""


@hookspec(firstresult=True)
def extract(need: Need, backbone: Backbone, pixels: Tensor) -> Tensor | None:
    """Compute one need on a cache miss.

    Args:
        need: what is asked for, e.g. ``Pooled(unit=False)``.
        backbone: the frozen backbone that ``need`` names.
        pixels: ``(B, 3, H, W)`` preprocessed float images, or as the need prepares them, e.g. ``(B, K, 3, H, W)`` for
            frames; views are already folded into ``B``. Nobody is asked of text.

    Returns:
        ``(B, ...)``, one row per image, or ``None`` to let the next plugin answer.
    """


@hookspec
def report(result: Result) -> None:
    """A cell of a run has finished: log it, plot it, send it somewhere.

    A module that names itself, ``reporter = "mine"``, hears only where a run asks, ``--report mine``; see
    `adaptkit.runs.reporters`.
    """
