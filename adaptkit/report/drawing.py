"""Lines, bars and names of a picture, by matplotlib: imported only where one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from math import isfinite
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adaptkit.io.safe import plotted
from adaptkit.report.scores import short_names

if TYPE_CHECKING:
    from adaptkit.report.figure_data import Drawing

# Source: Okabe and Ito, Color Universal Design, 2008; black first, and the yellow last, which paper hardly shows
OKABE_ITO = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")  # so that lines are told apart in grey, too
GREY = "#9A9A9A"
WIDTH, LETTER, SMALL = 7.2, 9.0, 7.5  # inches; points
LINE = 1.45  # of text, in its size
WRAPPED = 112  # letters of a caption in a line
LONGEST_NAME = 26  # letters of a name


class SelfShowing(Figure):
    """A figure that shows itself in notebooks, whatever backend they have."""

    def _repr_png_(self) -> bytes:
        held = BytesIO()
        self.savefig(held, format="png", dpi=100)
        return held.getvalue()


def blank_figure(title: str, caption: Sequence[str], rows: int = 0) -> Figure:
    """An empty figure with one pair of axes, as high as its rows and its caption ask for."""
    lines = [part for text in caption for part in wrap(plotted(text), WRAPPED, subsequent_indent="   ")]
    below = 0.62 + len(lines) * SMALL * LINE / 72  # inches, with the axis's numbers and name
    body = 0.4 + 0.27 * rows if rows else 4.0
    height = body + below + 0.42
    made = SelfShowing(figsize=(WIDTH, height))
    left, right = (0.31, 0.93) if rows else (0.085, 0.72)
    axes = made.add_axes((left, below / height, right - left, body / height))
    axes.set_title(plotted(title), fontsize=LETTER + 2, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=LETTER)
    if lines:
        made.text(
            0.012, 0.06 / height, "\n".join(lines), fontsize=SMALL, color="#444444", linespacing=LINE - 0.2, va="bottom"
        )
    return made


def looks(count: int) -> list[tuple[str, str, bool]]:
    """Colour, marker and whether it stands out, of each of so many methods, the best first."""
    strong = [(colour, marker, True) for colour, marker in zip(OKABE_ITO, MARKERS, strict=True)]
    return (strong + [(GREY, ".", False)] * count)[:count]


def draw_lines(axes: Axes, shown: Drawing, place: Callable[[int], float]) -> None:
    """A line for each method, the best eight in colour with a band, each with its name where it ends.

    Where it runs over something else than shots, points above a tick alone have a marker.
    """
    order, ends, names = shown.ordered(), [], short_names(shown.named())
    for rank, (method, (colour, marker, strong)) in enumerate(zip(order, looks(len(order)), strict=True)):
        curve = shown.curves[method]
        x = [place(k) for k in sorted(curve)]
        y = [shown.scale * curve[k].mean for k in sorted(curve)]
        half = [shown.half(curve[k]) for k in sorted(curve)]
        name = names.get(method, method)
        style: Any = {"linewidth": 1.6 if strong else 0.9, "markersize": 4 if strong else 3, "zorder": 50 - rank}
        marked = [i for i, k in enumerate(sorted(curve)) if k in shown.ticks] if shown.across else None
        axes.plot(x, y, color=colour, marker=marker, markevery=marked, label=plotted(name), **style)
        if strong:
            low, high = ([c + sign * h for c, h in zip(y, half, strict=True)] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=colour, alpha=0.09, linewidth=0, zorder=1)
        if method in names:
            ends.append((name, x[-1], y[-1], colour, strong))
    axes.set_xticks([place(k) for k in sorted(shown.ticks)], [shown.ticks[k] for k in sorted(shown.ticks)])
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)
    name_ends(axes, ends, within_shares(shown, axes.get_ylim()))


def within_shares(shown: Drawing, bounds: tuple[float, float]) -> tuple[float, float]:
    """Bounds of an axis without what no share can be, where all that is shown are shares."""
    low, high = bounds
    shares = all(0 <= found.mean <= 1 for by_shots in shown.curves.values() for found in by_shots.values())
    return (max(low, 0.0), min(high, 100.0)) if shown.scale == 100 and shares else bounds


def name_ends(axes: Axes, ends: Sequence[tuple[str, float, float, str, bool]], bounds: tuple[float, float]) -> None:
    """Each line's name right of the axes, apart from the others, and joined with the line's end."""
    low, high = bounds
    right = axes.get_xlim()[1]
    inches = axes.get_position().height * axes.get_figure(root=True).get_figheight()  # type: ignore[union-attr]
    size = min(LETTER, inches * 72 / max(len(ends), 1) / LINE)
    gap = (high - low) * size * LINE / 72 / inches
    heights = spread_apart([y for _, _, y, _, _ in ends], gap, low, high)
    for (name, x, y, colour, strong), height in zip(ends, heights, strict=True):
        ink = "#7A6A00" if colour == OKABE_ITO[-1] else colour if strong else "#6E6E6E"  # letters that paper shows
        axes.annotate(
            plotted(shortened(name)),
            xy=(x, y),
            xytext=(right + 0.035 * (right - axes.get_xlim()[0]), height),
            textcoords="data",
            annotation_clip=False,
            color=ink,
            fontsize=size,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.5,
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )
    axes.set(xlim=axes.get_xlim(), ylim=(low, high))


def shortened(name: str) -> str:
    """A name that there is room for."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def spread_apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights as near to those wanted as `gap` between neighbours allows, from `low` to `high`.

    Of equals, the first is the highest.

    >>> spread_apart([1.0, 1.0, 5.0], 1.0, 0.0, 6.0)
    [1.5, 0.5, 5.0]
    """
    groups: list[list[int]] = []

    def span(group: Sequence[int]) -> tuple[float, float]:
        """Lowest and highest of names that touch, around the mean of what they want, and inside."""
        middle, half = sum(wanted[i] for i in group) / len(group), gap * (len(group) - 1) / 2
        start = max(low, min(middle - half, high - 2 * half))
        return start, start + 2 * half

    for i in sorted(range(len(wanted)), key=lambda i: (wanted[i], -i)):
        groups.append([i])
        while len(groups) > 1 and span(groups[-2])[1] + gap > span(groups[-1])[0] + 1e-12:
            last = groups.pop()
            groups[-1] += last
    places = {i: span(group)[0] + gap * k for group in groups for k, i in enumerate(group)}
    return [places[i] for i in range(len(wanted))]


def draw_bars(axes: Axes, shown: Drawing) -> None:
    """A bar for each method, the best on top, with its number and its spread."""
    order, names = shown.ordered(), short_names(shown.ordered())
    found = [shown.curves[method][max(shown.curves[method])] for method in order]
    means = [shown.scale * each.mean for each in found]
    half = [shown.half(each) for each in found]
    ends = [mean + (width if isfinite(width) else 0.0) for mean, width in zip(means, half, strict=True)]
    axes.barh(range(len(order)), means, height=0.62, color=OKABE_ITO[2], alpha=0.85)
    axes.errorbar(means, range(len(order)), xerr=half, fmt="none", ecolor="#222222", elinewidth=0.9, capsize=2.5)
    for y, (mean, end, each) in enumerate(zip(means, ends, found, strict=True)):
        text = each.text(shown.metric, shown.spread)
        axes.annotate(text, (max(mean, end), y), (4, 0), textcoords="offset points", va="center", fontsize=SMALL)
    axes.set_yticks(range(len(order)), [plotted(shortened(names[method])) for method in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(min([0.0, *means]), 1.16 * max([*ends, 1e-9]))
    axes.grid(axis="x", color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)
