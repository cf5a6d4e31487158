"""The methods that are tried, the cheap ones first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from adaptkit.io.values import Spec

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


def portfolio(images: int, views: int) -> list[Candidate]:
    """What is tried on so many labelled images, of which so many random views are at hand.

    >>> [candidate.spec.name for candidate in portfolio(100, 0)]
    ['zero-shot', 'linear-probe']
    """

    def of(name: str, **options: Any) -> Spec:  # noqa: ANN401 (an option's value)
        return Spec.of({name: options} if options else name)

    found = [Candidate(of("zero-shot"), "nothing"), Candidate(of("linear-probe"))]
    if not views:
        return found
    kernel: dict[str, Any] = {"average": True} if images * views > KERNEL_ROWS else {}
    kernel |= {"features": 4096} if images > KERNEL_ROWS else {}
    crops = {"views": views, "augment": "crop-flip"}
    return [
        *found,
        Candidate(of("gda", views=views)),
        Candidate(of("tip-adapter", views=views)),
        Candidate(of("proker", views=views, **kernel)),
        Candidate(of("ape", views=views)),
        Candidate(of("lp-plus-plus", views=views), "stopping"),
        Candidate(of("diht-probe", views=views)),
        Candidate(of("clap", **crops), "nothing", trained=True),
    ]
