"""Our numbers beside those that a recipe quotes, and zero-shot beside what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptkit.io.shots import plain_shots
from adaptkit.io.text import columns
from adaptkit.report.scores import percent, score
from adaptkit.report.table import Table
from adaptkit.runs.published import Published
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.references import ZERO_SHOT, references


@dataclass(frozen=True)
class Beside:
    """One of our numbers and what somebody else reports.

    Attributes:
        method: its row's name.
        shots: of the column.
        ours: mean over seeds, in the unit of what is quoted.
        quote: the published number.
    """

    method: str
    shots: int
    ours: float
    quote: Published

    @property
    def gap(self) -> float:
        """How far ours is above the published number."""
        return self.ours - self.quote.value

    @property
    def near(self) -> bool:
        """Whether ours is as near as the recipe asks for."""
        return abs(self.gap) <= self.quote.within


def beside(recipe: Recipe, table: Table) -> list[Beside]:
    """Every number of a run that the recipe quotes one for: same method, shots, metric, backbone, one dataset.

    A quote for any number of shots stands beside the first column. Zero-shot has a quote, too, where one is known for
    the backbone and the dataset, and the recipe has none.
    """
    groups, found = table.groups(), []
    own = {quote.metric for quote in recipe.published if quote.method == ZERO_SHOT}
    known = [quote for quote in references(recipe) if ZERO_SHOT in groups and quote.metric not in own]
    for quote in [*recipe.published, *known]:
        if quote.datasets > 1 or quote.backbone not in ("", recipe.backbone):
            continue
        for method, by_shots in groups.items():
            shots = quote.shots or next(iter(by_shots))
            ours = score([by_shots.get(shots, [])], quote.metric)
            if ours and quote.names(method, groups):
                unit = 100 if percent(quote.metric) else 1
                found.append(Beside(method, shots, unit * ours.mean, quote))
    return found


def as_text(found: Sequence[Beside]) -> str:
    """A table for a terminal."""
    head = ["method", "shots", "metric", "ours", "published", "difference", "within", "source"]
    rows = []
    for b in found:
        numbers = f"{b.ours:.2f}", f"{b.quote.value:.2f}", f"{b.gap:+.2f}", f"{b.quote.within:.2f}"
        rows.append([b.method, str(plain_shots(b.shots)), b.quote.metric, *numbers, b.quote.source])
    return columns([head, *rows])


def verdict(found: Sequence[Beside]) -> str:
    """What is wrong, in one line; "" where nothing is."""
    if not found:
        return "nothing to verify: the recipe quotes no number for this backbone with these methods, shots and metrics"
    far = [
        f"{b.method} at {plain_shots(b.shots)} shots, {b.quote.metric}, by {b.gap:+.2f}" for b in found if not b.near
    ]
    return f"{len(far)} of {len(found)} numbers are not as published: {'; '.join(far)}" if far else ""
