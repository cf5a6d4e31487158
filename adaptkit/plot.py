"""Accuracy against shots, as a picture."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from adaptkit.table import Table, half_width


def plot(table: Table, path: Path, title: str) -> bool:
    """Write an SVG (or whatever `path` ends in) with a line and a 95 % band per method; false without matplotlib."""
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    names = list(table.groups())
    short = [name.partition("(")[0] for name in names]  # options only where names repeat
    labels = {name: s if short.count(s) == 1 else name for name, s in zip(names, short, strict=True)}
    axes.set_prop_cycle(color=[colormaps["tab20"](i) for i in range(20)])
    for name, by_shots in table.groups().items():
        curve = {
            k: [100 * r.metrics[table.metric] for r in by_shots[k] if table.metric in r.metrics]
            for k in sorted(by_shots)
        }
        curve = {k: values for k, values in curve.items() if values}
        if not curve:
            continue
        shots, centre = list(curve), [mean(v) for v in curve.values()]
        width = [half_width(v) if len(v) > 1 else 0.0 for v in curve.values()]
        (line,) = axes.plot(shots, centre, marker="o", markersize=3, linewidth=1.4, label=labels[name])
        low, high = ([c + sign * w for c, w in zip(centre, width, strict=True)] for sign in (-1, 1))
        axes.fill_between(shots, low, high, color=line.get_color(), alpha=0.06, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(table.shots(), [str(k) for k in table.shots()])
    axes.set(xlabel="shots per class", ylabel=f"{table.metric}, %", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return True
