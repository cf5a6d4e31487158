"""Results side by side: methods in rows, shots in columns, seeds averaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from statistics import mean, stdev
from typing import Any

from adaptkit.results import Result


class Table(Sequence[Result]):
    """Results side by side: methods in rows, shots in columns, seeds averaged. Shows itself in notebooks."""

    def __init__(self, results: Sequence[Result], metric: str = "accuracy") -> None:
        self.results, self.metric = list(results), metric

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, i: Any) -> Any:  # noqa: ANN401 (an index or a slice)
        return self.results[i]

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def groups(self) -> dict[str, dict[int, list[Result]]]:
        """Results by method, in the order they came, and by shots."""
        out: dict[str, dict[int, list[Result]]] = {}
        for r in self.results:
            out.setdefault(r.method, {}).setdefault(r.shots, []).append(r)
        return out

    def shots(self) -> list[int]:
        """All numbers of shots."""
        return sorted({r.shots for r in self.results})

    def one_protocol(self) -> None:
        """Everything here may be averaged.

        Raises:
            ValueError: when two results come from different protocols, naming the first field that differs.
        """
        for r in self.results[1:]:
            ours, theirs = self.results[0].protocol, r.protocol
            for name in sorted({*ours, *theirs}):
                if ours.get(name) != theirs.get(name):
                    raise ValueError(
                        f"results must share one protocol to stand in one table; got {name} = {ours.get(name)!r} "
                        f"and {theirs.get(name)!r}"
                    )

    def cells(self) -> list[list[str]]:
        """Head and rows, as text."""
        self.one_protocol()
        shots = self.shots()
        head = [
            "method",
            *(f"{k} shot{'s' * (k != 1)}" if k else "accuracy" for k in shots),
            "trained",
            "extract s",
            "fit s",
            "predict s",
        ]
        rows = []
        for name, by_shots in self.groups().items():
            all_ = [r for results in by_shots.values() for r in results]
            marked = name + (" (oracle)" if any(r.oracle for r in all_) else "")
            times = [mean(r.seconds.get(k, 0.0) for r in all_) for k in ("extract", "fit", "predict")]
            trained = sorted({r.parameters for r in all_})
            span = f"{trained[0]:,}" if len(trained) == 1 else f"{trained[0]:,} to {trained[-1]:,}"
            rows.append(
                [
                    marked,
                    *(interval(by_shots.get(k, []), self.metric) for k in shots),
                    span,
                    *(f"{t:.2f}" for t in times),
                ]
            )
        return [head, *rows]

    def text(self) -> str:
        """The table for a terminal."""
        return columns(self.cells())

    def _repr_html_(self) -> str:
        head, *rows = self.cells()
        first = "".join(f"<th>{escape(c)}</th>" for c in head)
        body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
        return f"<table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table>"

    def __repr__(self) -> str:
        return self.text()


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns, numbers to the right, with a rule under the head."""
    numeric = [all(row[i][:1].isdigit() or row[i] in ("", "-") for row in rows[1:]) for i in range(len(rows[0]))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def interval(results: Sequence[Result], metric: str = "accuracy") -> str:
    """Mean of a metric, percent, and the half-width of its 95 % interval over seeds (Student's t)."""
    values = [100 * r.metrics[metric] for r in results if metric in r.metrics]
    if not values:
        return "-"
    return f"{mean(values):.1f}" + (f" ± {half_width(values):.1f}" if len(values) > 1 else "")


def half_width(values: Sequence[float]) -> float:
    """Half-width of the 95 % interval of a mean over few values."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
