"""A reliability diagram as SVG."""

from __future__ import annotations

from adaptkit.report.errors.counts import Reliability

WIDTH, LEFT, RIGHT, TOP, BOTTOM, FOOT = 460, 44, 448, 28, 268, 318  # where the axes stand; counts are below them


def reliability_svg(found: Reliability) -> str:
    """Accuracy against confidence in bars, the gap to what was promised, and below how many answers there are."""
    parts, most = [axes()], max(1, int(found.counts.max()))
    for i, count in enumerate(found.counts.tolist()):
        if not count:
            continue
        left, right = across(found.edges[i]) + 1, across(found.edges[i + 1]) - 1
        accuracy, sure = float(found.accuracy[i]), float(found.confidence[i])
        bounds = f"{found.edges[i]:.2f} to {found.edges[i + 1]:.2f}"
        said = f"confidence {bounds}: {count:,} images, {100 * accuracy:.1f} % right"
        height, middle = 34 * count / most, (left + right) / 2
        parts.append(
            f"<g><title>{said}; mean confidence {100 * sure:.1f} %</title>"
            f'<rect class="bar" x="{left:.1f}" y="{up(accuracy):.1f}" width="{right - left:.1f}" '
            f'height="{BOTTOM - up(accuracy):.1f}"/>'
            f'<line class="gap" x1="{middle:.1f}" x2="{middle:.1f}" y1="{up(accuracy):.1f}" y2="{up(sure):.1f}"/>'
            f'<rect class="count" x="{left:.1f}" y="{FOOT + 36 - height:.1f}" width="{right - left:.1f}" '
            f'height="{height:.1f}"/></g>'
        )
    said = f"accuracy against confidence; expected calibration error {found.ece:.3f}"
    return f'<svg viewBox="0 0 {WIDTH} {FOOT + 58}" role="img" aria-label="{said}">{"".join(parts)}</svg>'


def axes() -> str:
    """Two axes in percent, the line on which both are equal, and the words beside them."""
    lines = [
        f'<line class="even" x1="{LEFT}" y1="{BOTTOM}" x2="{RIGHT}" y2="{TOP}"/>',
        f'<line class="line" x1="{LEFT}" y1="{BOTTOM}" x2="{RIGHT}" y2="{BOTTOM}"/>',
        f'<line class="line" x1="{LEFT}" y1="{FOOT + 36}" x2="{RIGHT}" y2="{FOOT + 36}"/>',
    ]
    for percent in (0, 25, 50, 75, 100):
        at = percent / 100
        lines.append(f'<text x="{LEFT - 8}" y="{up(at) + 4:.1f}" text-anchor="end">{percent}</text>')
        lines.append(f'<text x="{across(at):.1f}" y="{BOTTOM + 16}" text-anchor="middle">{percent}</text>')
    words = [
        (LEFT, TOP - 12, "start", "accuracy, %; thin lines: the gap to confidence"),
        (RIGHT, BOTTOM + 32, "end", "confidence, %"),
        (LEFT, FOOT + 52, "start", "images"),
    ]
    return "".join([*lines, *(f'<text x="{x}" y="{y}" text-anchor="{end}">{word}</text>' for x, y, end, word in words)])


def across(share: float) -> float:
    """Where a confidence stands."""
    return LEFT + share * (RIGHT - LEFT)


def up(share: float) -> float:
    """Where an accuracy stands."""
    return BOTTOM - share * (BOTTOM - TOP)
