"""A metric against shots, as a picture."""

from __future__ import annotations

from io import BytesIO
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from adaptkit.io.files import atomic_write
from adaptkit.io.safe import plotted
from adaptkit.report.scores import percent, score, short_names, unit_of
from adaptkit.runs.results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Curves(Protocol):
    """What a picture shows: results by method and shots, and the metric."""

    metric: str

    def groups(self) -> dict[str, dict[int, list[Result]]]:
        """By method, then by shots."""
        ...

    def shots(self) -> list[int]:
        """All numbers of shots."""
        ...


def plot(table: Curves, path: Path, title: str) -> bool:
    """Write an SVG (or whatever `path` ends in) with a line and a 95 % band per method; false without matplotlib."""
    try:
        drawn = figure(table, title)
    except ImportError:
        return False
    held = BytesIO()
    drawn.savefig(held, format=path.suffix[1:])
    atomic_write(path, held.getvalue())
    return True


def figure(table: Curves, title: str) -> Figure:
    """A line and a 95 % band per method.

    Raises:
        ImportError: without matplotlib.
    """
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a plot needs matplotlib; pip install 'adaptkit-vlm[demo]'") from error

    class Picture(Figure):
        """A figure that shows itself in notebooks, whatever backend they have."""

        def _repr_png_(self) -> bytes:
            held = BytesIO()
            self.savefig(held, format="png", dpi=100)
            return held.getvalue()

    made = Picture(figsize=(9, 5), layout="constrained")
    axes = made.subplots()
    axes.set_prop_cycle(color=[colormaps["tab20"](i) for i in range(20)])
    scale, groups = 100 if percent(table.metric) else 1, table.groups()
    labels = short_names(list(groups))
    for name, by_shots in groups.items():
        curve = {k: found for k in sorted(by_shots) if (found := score([by_shots[k]], table.metric))}
        x, y = [place(k) for k in curve], [scale * found.mean for found in curve.values()]
        half = [scale * (found.half or 0.0) for found in curve.values()]
        (line,) = axes.plot(x, y, marker="o", markersize=3, linewidth=1.4, label=plotted(labels[name]))
        low, high = ([c + sign * h for c, h in zip(y, half, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.06, linewidth=0)
    axes.set_xticks([place(k) for k in table.shots()], [tick(k, groups) for k in table.shots()])
    axes.set(xlabel="shots per class", ylabel=plotted(unit_of(table.metric)), title=plotted(title))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    return made


def tick(shots: int, groups: dict[str, dict[int, list[Result]]]) -> str:
    """A number of shots, with the most images that a class had where these were fewer."""
    counts = [n for by_shots in groups.values() for r in by_shots.get(shots, []) for n in r.images_per_class]
    return str(shots) + (f"\n({max(counts)} had)" if counts and max(counts) < shots else "")


def place(shots: int) -> float:
    """Where a number of shots stands: at its logarithm, and none left of one."""
    return log2(shots) if shots else -1.0
