"""What a search on validation images saw, as records keep it and warnings tell it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from adaptkit.io.notices import Notice
from adaptkit.io.values import convert
from adaptkit.methods.method import Method
from adaptkit.methods.widening import Side


class EdgeOfGridWarning(Notice):
    """A search on validation images ended at the edge of its grid: what does best may lie outside.

    >>> import warnings
    >>> import adaptkit as ak
    >>> warnings.simplefilter("ignore", ak.EdgeOfGridWarning)
    """


@dataclass(frozen=True)
class Searched:
    """What a search saw of one hyperparameter.

    Attributes:
        low: the least value that was tried.
        high: the largest.
        values: how many were tried.
        chosen: the value that was taken.
        edge: the end of the grid at which it lies, ``"low"`` or ``"high"``; "" inside, where another value does as well
            (beside the chosen values of others), and where the grid ends because values do, as shares do at 0 and 1.
        widened: how often the grid was continued beyond an edge.
    """

    low: float
    high: float
    values: int
    chosen: float
    edge: Side = ""
    widened: int = 0


@dataclass(frozen=True)
class Search:
    """What a search on validation images saw.

    Attributes:
        values: the cell that was chosen.
        correct: right answers in each cell, shaped like the grid; for other kinds than classification the objective.
        total: validation images.
        grid: the values that were tried, by hyperparameter.
        options: what was seen of each hyperparameter; see `Searched`.
    """

    values: Mapping[str, float]
    correct: Tensor
    total: int
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    options: Mapping[str, Searched] = field(default_factory=dict)


def searched(method: Method) -> dict[str, Searched]:
    """What all searches of an adapted method saw, by hyperparameter; those of its base are named ``base.alpha``."""
    inner = [
        (f"{path}.{name}".lstrip("."), found)
        for path, m in method.named_modules()
        if isinstance(m, Method)
        for name, found in m._searched.items()
    ]
    return {name: convert(found, Searched, name) for name, found in inner}


def warn_of_edges(method: Method) -> None:
    """Warn, in a line for each method, that searches ended at an edge."""
    for each in (m for m in method.modules() if isinstance(m, Method)):
        at = {name: found for name, found in each._searched.items() if found["edge"]}
        if not at:
            continue
        told = ", ".join(f"{name} = {found['chosen']:.4g} ({found['edge']})" for name, found in at.items())
        more = "set a grid or values farther out" if each._search == "widen" else 'search="widen" goes on beyond it'
        warnings.warn(
            f"{type(each).__name__} did best at the edge of its grid: {told}; {more}", EdgeOfGridWarning, stacklevel=3
        )
