"""The methods that are tried, the cheap ones first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adaptkit.io.values import Spec
from adaptkit.towers.preprocess import NO_AUGMENT

VIEWS = 4  # random views of a labelled image, where there is time for them
KERNEL_ROWS = 8000  # rows that an exact kernel may hold
DEFAULT = "tip-adapter"  # where nothing can be estimated: its paper finds it above zero-shot with one image a class


@dataclass(frozen=True)
class Candidate:
    """A method that may be chosen. Each answers an image by that image alone.

    Attributes:
        spec: its name and options.
        validates: what it uses validation images for: nothing, values of options, or when to stop.
        trained: whether it learns by gradient descent, which takes longer.
    """

    spec: Spec
    validates: Literal["nothing", "values", "stopping"] = "values"
    trained: bool = False

    @property
    def label(self) -> str:
        """Its name, and of which images it learns, e.g. ``"gda (plain)"``, ``"gda (4 views)"``."""
        views = self.spec.options.get("views")
        if views is None:
            return self.spec.name
        if self.spec.options["augment"] == NO_AUGMENT:
            return f"{self.spec.name} (plain)"
        return f"{self.spec.name} ({views} view{'s' * (views > 1)})"


def portfolio(images: int, views: int) -> list[Candidate]:
    """What is tried on so many labelled images, of which so many random views are at hand.

    Each learns from the plain images, and most once more from random views: crops and mirror images help with objects,
    and hurt where left and right, or the border, tell classes apart, as with digits.

    >>> [candidate.spec.name for candidate in portfolio(100, 0)][:3]
    ['zero-shot', 'linear-probe', 'gda']
    """
    plain = {"views": 1, "augment": NO_AUGMENT}
    found = [Candidate(Spec("zero-shot"), "nothing"), Candidate(Spec("linear-probe")), *seeing(images, plain)]
    if views:
        found += seeing(images, {"views": views, "augment": "crop-flip"})
    return sorted(found, key=lambda one: one.trained)


def seeing(images: int, what: Mapping[str, Any]) -> list[Candidate]:
    """Methods that learn from so many images, plain or in random views."""
    kernel: dict[str, Any] = {"average": True} if images * what["views"] > KERNEL_ROWS else {}
    kernel |= {"features": 4096} if images > KERNEL_ROWS else {}
    return [
        Candidate(Spec("gda", what)),
        Candidate(Spec("timo", what)),
        Candidate(Spec("tip-adapter", what)),
        Candidate(Spec("proker", {**what, **kernel})),
        Candidate(Spec("ape", what)),
        Candidate(Spec("lp-plus-plus", what), "stopping"),
        Candidate(Spec("diht-probe", what)),
        Candidate(Spec("task-res", what), "nothing", trained=True),
        Candidate(Spec("clap", what), "nothing", trained=True),
    ]
