"""What tables show: metrics in their units, means over seeds and datasets, methods by short names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from statistics import harmonic_mean, mean, stdev
from typing import Literal

from adaptkit.io.shots import plain_shots
from adaptkit.methods.evaluation.kinds import EVALUATIONS
from adaptkit.runs.results import Result

HARMONIC = ("accuracy", "new/accuracy")  # what "harmonic" is the mean of: base and new classes
UNSCALED = frozenset().union(*(each.unscaled for each in EVALUATIONS.values()))  # every other metric is a percentage
Spread = Literal["std", "interval"]
SPREADS: dict[Spread, str] = {"std": "standard deviation", "interval": "95 % interval"}  # what stands behind a ±
FALLING = frozenset().union(*(each.falling for each in EVALUATIONS.values()))  # better where smaller


@dataclass(frozen=True)
class Score:
    """A metric's mean over seeds.

    Attributes:
        mean: in the metric's own unit, as records have it.
        values: one for each seed; none where only the mean has a meaning.
    """

    mean: float
    values: tuple[float, ...] = ()

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds, if there are several."""
        return std_of(self.values) if len(self.values) > 1 else None

    @property
    def half(self) -> float | None:
        """Half-width of the 95 % interval of the mean, if there are several seeds."""
        return half_width(self.values) if len(self.values) > 1 else None

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """Of the 95 % interval of the mean, if there are several seeds."""
        return (None, None) if self.half is None else (self.mean - self.half, self.mean + self.half)

    def around(self, spread: Spread = "interval") -> float | None:
        """What stands behind the ±: the interval's half-width, or the standard deviation."""
        return self.half if spread == "interval" else self.std

    def text(self, metric: str, spread: Spread = "interval") -> str:
        """Mean and spread, e.g. ``"70.0 ± 2.1"``."""
        width = self.around(spread)
        return show(self.mean, metric) + ("" if width is None else f" ± {show(width, metric)}")


def over_seeds(spread: Spread) -> str:
    """What a ± is, in words."""
    return f"mean ± {SPREADS[spread]} over seeds" + " (Student's t)" * (spread == "interval")


def parts(metric: str) -> tuple[str, ...]:
    """The metrics that one is made of: itself, but for the harmonic mean of base-to-new."""
    return HARMONIC if metric == "harmonic" else (metric,)


def percent(metric: str) -> bool:
    """Whether a metric is shown as a percentage."""
    return metric.rpartition("/")[2] not in UNSCALED


def falling(metric: str) -> bool:
    """Whether smaller is better."""
    return metric.rpartition("/")[2] in FALLING


def unit_of(metric: str) -> str:
    """A metric's name with what it is counted in."""
    return f"{metric}, %" if percent(metric) else metric


def show(value: float, metric: str, sign: str = "") -> str:
    """A value as tables have it: percentages with one decimal, others with three."""
    return f"{100 * value:{sign}.1f}" if percent(metric) else f"{value:{sign}.3f}"


def show_end(value: float, metric: str) -> str:
    """An end of an interval, with its sign; one that is nearly 0 keeps a digit, as the side of 0 it lies on matters."""
    text = show(value, metric, "+")
    hidden = value != 0 and not any(digit in text for digit in "123456789")
    return f"{100 * value if percent(metric) else value:+.1g}" if hidden else text


def score(groups: Sequence[Sequence[Result]], metric: str) -> Score | None:
    """Mean over datasets of the mean over seeds; ``None`` when a dataset lacks the metric.

    A harmonic mean is taken last, of averaged base and averaged new, and has no spread over seeds.

    Args:
        groups: one method's results at one number of shots, dataset by dataset.
        metric: its name.
    """
    means: list[float] = []
    values: tuple[float, ...] = ()
    for part in parts(metric):
        rows = [{r.seed: r.metrics[part] for r in group if part in r.metrics} for group in groups]
        if not rows or not all(rows):
            return None
        means.append(mean(mean(row.values()) for row in rows))
        if all(row.keys() == rows[0].keys() for row in rows):
            values = tuple(mean(row[seed] for row in rows) for seed in rows[0])
    return Score(means[0], values) if len(means) == 1 else Score(harmonic_mean(means))


def class_counts(result: Result) -> Sequence[int]:
    """Labelled images that there were of each class; of a search none, whose pairs to learn from are of no class."""
    return [] if result.protocol.get("kind") == "ranking" else result.images_per_class


def heading(shots: int) -> str:
    """A column's heading; "" where nobody counted."""
    return f"{plain_shots(shots)} shot{'s' * (shots != 1)}" if shots else ""


def short_names(labels: Sequence[str]) -> dict[str, str]:
    """Labels without their options; of those that would be alike, each with options has the number of a note.

    >>> short_names(["gda", "gda(views=4)", "tip-adapter(views=4)"])
    {'gda': 'gda', 'gda(views=4)': 'gda [1]', 'tip-adapter(views=4)': 'tip-adapter'}
    """
    names = [label.partition("(")[0] for label in labels]
    noted = [label for label, name in zip(labels, names, strict=True) if names.count(name) > 1 and label != name]
    numbers = {label: f" [{i}]" for i, label in enumerate(noted, 1)}
    short = {label: name + numbers.get(label, "") for label, name in zip(labels, names, strict=True)}
    taken = [*short.values()]
    return {label: told if taken.count(told) == 1 else label for label, told in short.items()}


def option_notes(labels: Sequence[str]) -> list[str]:
    """What `short_names` leaves out: a note for each number, then the options of all other rows, in one."""
    short = short_names(labels)
    cut = [label for label, told in short.items() if told == label.partition("(")[0] != label]
    numbered = [
        f"{told.rpartition(' ')[2]} {label}" for label, told in short.items() if told != label and label not in cut
    ]
    return [*numbered, *([f"with options: {', '.join(cut)}"] if cut else [])]


def half_width(values: Sequence[float]) -> float:
    """Half-width of the 95 % interval of a mean over few values (Student's t)."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1)) * std_of(values) / len(values) ** 0.5


def std_of(values: Sequence[float]) -> float:
    """Standard deviation of some values; NaN where one of them is no number, or infinite."""
    return stdev(values) if all(map(isfinite, values)) else nan
