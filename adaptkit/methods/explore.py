"""Searches of a grid: which cell does best, whether that is at an edge, and what lies beyond the edge.

A grid is sized for the backbones of its paper. Where the best cell lies at its end, the best value may lie outside.
"""

from __future__ import annotations

import itertools
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from adaptkit.io.ranges import bounds_of, hints
from adaptkit.methods.method import Method
from adaptkit.methods.searched import Search, Searched
from adaptkit.methods.widening import TIMES, Side, Widening, beyond, known_search, room

Scorer = Callable[[Mapping[str, Sequence[float]]], Tensor]


def explore(
    method: Method, grid: Mapping[str, Sequence[float]], score: Scorer, total: int, *, search: Widening = "paper"
) -> Search:
    """Find the cell that does best, the first of equal ones, and keep in mind how it lies in the grid.

    Args:
        method: whose hyperparameters these are; it is told what was found, and its annotations state their ranges.
        grid: values of each.
        score: of the cells of a grid, shaped like it; larger is better.
        total: validation images.
        search: ``"widen"`` continues the grid where only values at one of its ends do best, until the best lies inside,
            and upwards where all cells do equally well; at most five times for each hyperparameter. What does no better
            does not change the choice.
    """
    known_search(search)
    seen = Seen(method, grid, score)
    for name in [*grid] * TIMES if search == "widen" else ():
        seen.widen(name)
    return seen.told(total)


class Seen:
    """The cells that a search has tried, and the best of them."""

    def __init__(self, method: Method, grid: Mapping[str, Sequence[float]], score: Scorer) -> None:
        self.method, self.first, self.score = method, grid, score
        self.tried = {name: tuple(values) for name, values in grid.items()}
        self.scores = score(self.tried)
        self.values, self.top = best_of(self.tried, self.scores)
        self.widened = dict.fromkeys(grid, 0)

    def along(self, name: str) -> list[float]:
        """How well each value of one hyperparameter does beside the best values of the others."""
        at = [slice(None) if n == name else values.index(self.values[n]) for n, values in self.tried.items()]
        return self.scores[tuple(at)].tolist()

    def widen(self, name: str) -> None:
        """Continue the values of one hyperparameter, if the best lies at their edge and there are more."""
        axis, old = [*self.tried].index(name), self.tried[name]
        side = edge(self.method, name, old, self.along(name), self.values[name]) or self.blind(name)
        fresh = beyond(self.first[name], old, side, allowed(self.method, name)) if side else ()
        if not fresh:
            return
        part = {**self.tried, name: fresh}
        try:
            more = self.score(part)
        except (ValueError, torch.linalg.LinAlgError):  # where a method cannot answer, its values end
            return
        further, reached = best_of(part, more)
        if reached > self.top:
            self.values, self.top = further, reached
        values, scores = old + fresh, torch.cat([self.scores, more], axis)
        order = sorted(range(len(values)), key=values.__getitem__)
        self.tried[name] = tuple(values[i] for i in order)
        self.scores = scores.index_select(axis, torch.tensor(order))
        self.widened[name] += 1

    def blind(self, name: str) -> Side:
        """The upper end, where no cell of all that were tried does better than another: such a grid tells nothing."""
        low, high = min(self.tried[name]), max(self.tried[name])
        flat = low < high and (low, high) != (0, 1) and bool(self.scores.min() == self.scores.max())
        return "high" if flat and room(high, "high", allowed(self.method, name)) else ""

    def told(self, total: int) -> Search:
        """What was seen, which the method keeps in mind."""
        options = {
            name: note(self.method, name, values, self.along(name), self.values[name], self.widened[name])
            for name, values in self.tried.items()
        }
        return Search(self.values, self.scores, total, self.tried, options)


def choose(method: Method, option: str, values: Sequence[float], score: Callable[[float], float]) -> float:
    """The value of an option that scores best, the first of equal ones: for a search inside of `fit`.

    Under ``search="widen"`` it goes on beyond the ends of `values`. Which end it stopped at stands in the record.

    Args:
        method: that is fitted.
        option: that is searched; it is not set.
        values: that are tried.
        score: of one value, larger for better, e.g. right answers on validation images.
    """

    def scores(grid: Mapping[str, Sequence[float]]) -> Tensor:
        return torch.tensor([score(value) for value in grid[option]], dtype=torch.double)

    return explore(method, {option: values}, scores, 0, search=method._search).values[option]


def note(
    method: Method,
    name: str,
    values: Sequence[float],
    scores: Sequence[float],
    chosen: float,
    widened: int | None = None,
) -> Searched:
    """Keep in a method what a search saw of one hyperparameter: what was tried, how well it did, and what was taken.

    How often it was widened is what was noted before, where it is not said.
    """
    if widened is None:
        widened = method._searched.get(name, {}).get("widened", 0)
    side = edge(method, name, values, scores, chosen)
    found = Searched(float(min(values)), float(max(values)), len({*values}), float(chosen), side, widened)
    method._searched = {**method._searched, name: asdict(found)}
    return found


def best_of(grid: Mapping[str, Sequence[float]], scores: Tensor) -> tuple[dict[str, float], float]:
    """The first of the cells that do best, and how well they do."""
    cell = next(itertools.islice(itertools.product(*grid.values()), int(scores.argmax()), None))
    return dict(zip(grid, cell, strict=True)), float(scores.max())


def edge(method: Method, name: str, values: Sequence[float], scores: Sequence[float], chosen: float) -> Side:
    """The end at which the chosen value lies, if it does better than all others and the values might go on."""
    low, high = min(values), max(values)
    own = max(s for v, s in zip(values, scores, strict=True) if v == chosen)
    if low == high or low < chosen < high or any(s >= own for v, s in zip(values, scores, strict=True) if v != chosen):
        return ""
    side: Side = "low" if chosen == low else "high"
    return "" if (low, high) == (0, 1) or chosen == 0 or not room(chosen, side, allowed(method, name)) else side


def allowed(method: Method, name: str) -> tuple[float, float, bool]:
    """The least and the largest value that an option's annotation allows, and whether only whole numbers are."""
    known: Any = type(method)
    kind = hints(known).get(name)
    low, high = bounds_of(kind)
    whole = kind is int or (typing.get_args(kind) or (None,))[0] is int
    return -math.inf if low is None else low, math.inf if high is None else high, whole


@contextmanager
def trying(method: Method, grid: Mapping[str, Sequence[float]]) -> Iterator[None]:
    """Let a method answer for another grid than its own: its `sweep` asks for it."""
    own: dict[str, Any] = vars(method)
    own["grid"] = lambda: grid
    try:
        yield
    finally:
        del own["grid"]
