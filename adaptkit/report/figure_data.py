"""What a picture shows, apart from how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan

from adaptkit.report.scores import Score, Spread, falling, percent

NO_MATPLOTLIB = "a plot needs matplotlib; pip install 'adaptkit-vlm[demo]'"
COLOURED = 8  # lines, the best ones
MOST_NAMED = 24  # lines, for whose names there is room


@dataclass(frozen=True)
class Drawing:
    """What a picture shows.

    Attributes:
        metric: its name.
        title: of the picture.
        curves: by method, its score at each number of shots.
        ticks: what stands below each number of shots.
        caption: lines under the picture.
        spread: what bands and bars show.
        across: what lines run over, where it is not shots: `curves` and `ticks` are by that, then.
    """

    metric: str
    title: str
    curves: Mapping[str, Mapping[int, Score]]
    ticks: Mapping[int, str] = field(default_factory=dict)
    caption: Sequence[str] = ()
    spread: Spread = "interval"
    across: str = ""

    @property
    def scale(self) -> int:
        """From the metric's own unit to that of the axis."""
        return 100 if percent(self.metric) else 1

    def half(self, found: Score) -> float:
        """Of a band or a bar, on the axis; not a number where there is none, so that nothing is drawn there."""
        width = found.around(self.spread)
        return self.scale * width if width is not None and isfinite(width) else nan

    def ordered(self) -> list[str]:
        """Methods, the best at their last number of shots first."""
        sign = 1 if falling(self.metric) else -1
        return sorted(self.curves, key=lambda m: sign * self.curves[m][max(self.curves[m])].mean)

    def named(self) -> list[str]:
        """Methods that have their names in the picture, the best first: all bars, and of many lines those in colour."""
        order = self.ordered()
        lines = len({k for by_shots in self.curves.values() for k in by_shots}) > 1
        return order[:COLOURED] if lines and len(order) > MOST_NAMED else order
