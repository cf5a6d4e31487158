"""A confusion matrix and a reliability diagram, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptkit.io.safe import plotted
from adaptkit.report.errors.counts import Numbers, reliability
from adaptkit.report.figure_data import NO_MATPLOTLIB

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES_SHOWN = 60  # classes whose names fit beside a matrix
RIGHT_COLOUR, WRONG_COLOUR = "#0072b2", "#d55e00"  # that differ for every eye


def confusion_figure(counts: np.ndarray, names: Sequence[str], title: str = "") -> Figure:
    """A confusion matrix ``(C, C)``, true classes in rows, as shares of each row's images.

    Raises:
        ImportError: without matplotlib.
    """
    side = min(14.0, 2.5 + 0.3 * len(names))
    figure, axes = new_figure(side + 1, side)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    shown = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(shown, ax=axes, label="% of the class's images", shrink=0.7)
    if len(names) <= NAMES_SHOWN:
        said = [plotted(name) for name in names]
        axes.set_xticks(range(len(names)), said, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), said, fontsize=8)
    axes.set(xlabel="answered", ylabel="true", title=plotted(title))
    return figure


def reliability_figure(confidence: Numbers, right: Numbers, title: str = "") -> Figure:
    """Accuracy against confidence, and below it how many answers there are.

    Args:
        confidence: the probability of the answer, ``(N,)``.
        right: whether it is right, ``(N,)``.
        title: above it.

    Raises:
        ImportError: without matplotlib.
    """
    found = reliability(confidence, right)
    figure, (axes, below) = new_figure(5, 5.5, 2, height_ratios=[4, 1], sharex=True)
    some = found.counts > 0
    left, width = found.edges[:-1][some], np.diff(found.edges)[some]
    accuracy, sure = 100 * found.accuracy[some], 100 * found.confidence[some]
    axes.bar(100 * left, accuracy, 100 * width, align="edge", color=RIGHT_COLOUR, alpha=0.75, edgecolor="white")
    axes.vlines(100 * (left + width / 2), accuracy, sure, color=WRONG_COLOUR, label="gap to the confidence")
    axes.plot([0, 100], [0, 100], color="0.5", linestyle="--", linewidth=1)
    axes.set(ylabel="accuracy, %", ylim=(0, 100), title=plotted(title))
    axes.text(2, 92, f"expected calibration error {found.ece:.3f}", fontsize=9)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.92), frameon=False, fontsize=8)
    below.bar(100 * left, found.counts[some], 100 * width, align="edge", color="0.6", edgecolor="white")
    below.set(xlabel="confidence, %", ylabel="images", xlim=(0, 100))
    return figure


def new_figure(width: float, height: float, rows: int = 1, **more: Any) -> tuple[Figure, Any]:  # noqa: ANN401
    """A figure that shows itself in notebooks, and its axes.

    Raises:
        ImportError: without matplotlib.
    """
    try:
        from adaptkit.report.drawing import SelfShowing
    except ImportError as error:
        raise ImportError(NO_MATPLOTLIB) from error
    figure = SelfShowing(figsize=(width, height), layout="constrained")
    sharing = {"sharex": more.pop("sharex")} if "sharex" in more else {}
    return figure, figure.subplots(rows, **sharing, gridspec_kw=more or None)
