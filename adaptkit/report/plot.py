"""A metric against shots, or by method where there is one number of shots, as a picture fit to print."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from math import isfinite, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from adaptkit.io.files import atomic_write
from adaptkit.io.safe import plotted
from adaptkit.io.shots import ALL_SHOTS, plain_shots
from adaptkit.report.backbones import backbone_line
from adaptkit.report.figure_data import NO_MATPLOTLIB, Drawing
from adaptkit.report.scores import SPREADS, Score, Spread, class_counts, option_notes, percent, score
from adaptkit.runs.results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ALL_AT = 7.0  # as 128 shots would stand
EMBEDDED: Any = {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "adaptkit"}  # fonts go with the file


class Curves(Protocol):
    """What a picture of a table shows: results by method and shots, the metric, and what stands behind a ±."""

    metric: str
    spread: Spread

    def groups(self) -> dict[str, dict[int, list[Result]]]:
        """By method, then by shots."""
        ...

    def shots(self) -> list[int]:
        """All numbers of shots."""
        ...


def of_table(table: Curves, title: str = "") -> Drawing:
    """The picture of a run's table."""
    groups = table.groups()
    results = [r for by_shots in groups.values() for rows in by_shots.values() for r in rows]
    backbones = dict.fromkeys(str(r.protocol["backbone"]) for r in results if r.protocol.get("backbone"))
    curves = {
        m: {k: found for k in sorted(by_shots) if (found := score([by_shots[k]], table.metric))}
        for m, by_shots in groups.items()
    }
    ticks = {k: tick(k, groups) for k in table.shots()}
    return drawing(table.metric, title, curves, ticks, [*map(backbone_line, backbones)], table.spread)


def drawing(
    metric: str,
    title: str,
    curves: Mapping[str, Mapping[int, Score]],
    ticks: Mapping[int, str],
    above: Sequence[str],
    spread: Spread,
) -> Drawing:
    """A picture of what there is, with a caption that says what its bands are and what its names leave out."""
    finite = {m: {k: found for k, found in each.items() if isfinite(found.mean)} for m, each in curves.items()}
    known = {m: by_shots for m, by_shots in finite.items() if by_shots}
    several = any(found.around(spread) is not None for by_shots in known.values() for found in by_shots.values())
    bands = [f"{'bands' if len(ticks) > 1 else 'bars'}: {SPREADS[spread]} over seeds"] if several else []
    made = Drawing(metric, title, known, ticks, spread=spread)
    others = len(known) - len(made.named())
    grey = [f"grey: {others} others, which are behind"] if others else []
    return replace(made, caption=[*above, *bands, *grey, *option_notes(made.named())])


def plot(table: Curves, path: Path, title: str) -> bool:
    """Write the picture of a table, as whatever `path` ends in; false without matplotlib."""
    try:
        atomic_write(path, as_picture(of_table(table, title), path.suffix[1:]))
    except ImportError:
        return False
    return True


def as_picture(shown: Drawing, kind: str) -> bytes:
    """A picture as a file of a kind: svg, pdf or png, with its fonts in it and the same bytes each time.

    Raises:
        ImportError: without matplotlib.
    """
    drawn, held = figure(shown), BytesIO()
    from matplotlib import rc_context

    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with rc_context(EMBEDDED), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that no font here has is drawn as a box
        drawn.savefig(held, format=kind, dpi=150, metadata=dates.get(kind, {}))
    return held.getvalue()


def figure(shown: Drawing) -> Figure:
    """A line and a band for each method; bars where there is one number of shots.

    Raises:
        ImportError: without matplotlib.
    """
    try:
        import matplotlib  # noqa: F401 (asked for anew each time, as who draws may be loaded already)

        from adaptkit.report.drawing import blank_figure, draw_bars, draw_lines
    except ImportError as error:
        raise ImportError(NO_MATPLOTLIB) from error

    shots = {k for by_shots in shown.curves.values() for k in by_shots}
    made = blank_figure(shown.title, shown.caption, rows=len(shown.curves) if len(shots) < 2 else 0)
    axes = made.axes[0]
    unit = f"{shown.metric} (%)" if percent(shown.metric) else shown.metric
    if shown.across:
        draw_lines(axes, shown, float)
        axes.set(xlabel=shown.across, ylabel=plotted(unit))
    elif len(shots) > 1:
        draw_lines(axes, shown, place)
        axes.set(xlabel="labelled images per class", ylabel=plotted(unit))
    else:
        draw_bars(axes, shown)
        axes.set(xlabel=plotted(unit))
    return made


def tick(shots: int, groups: Mapping[str, Mapping[int, Sequence[Result]]]) -> str:
    """A number of shots, with the most images that a class had where these were fewer."""
    counts = [n for by_shots in groups.values() for r in by_shots.get(shots, []) for n in class_counts(r)]
    return str(plain_shots(shots)) + (f"\n({max(counts)} had)" if counts and max(counts) < shots else "")


def place(shots: int) -> float:
    """Where a number of shots stands: at its logarithm, none left of one, and all to the right of any in use."""
    return ALL_AT if shots == ALL_SHOTS else log2(shots) if shots else -1.0
