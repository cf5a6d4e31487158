"""Results side by side: methods in rows, shots in columns, seeds averaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from statistics import mean
from typing import TYPE_CHECKING, Any

from adaptkit.io.safe import line
from adaptkit.io.shots import plain_shots
from adaptkit.io.text import columns
from adaptkit.methods.evaluation.base import Evaluation
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.report.edges import edge_lines, marked
from adaptkit.report.errors.behind import HasPredictions
from adaptkit.report.scores import Spread, class_counts, heading, option_notes, score, short_names, unit_of
from adaptkit.report.sequence import as_lines
from adaptkit.runs.failures import Failure
from adaptkit.runs.results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Table(HasPredictions, Sequence[Result]):
    """Results side by side: methods in rows, shots in columns, seeds averaged. Shows itself in notebooks.

    Of a sequence of tasks, rows are what stands after the last; below them is what stood after each.

    Attributes:
        results: all of them.
        metric: that is shown; "" is the first that the kind of the results is about, e.g. accuracy.
        failures: cells that have no result, which are marked.
        keeper: knows the predictions behind the results, where they were kept; see `predictions`.
        spread: what stands behind a ±, over seeds: the 95 % "interval" of the mean, or the standard deviation, "std".
    """

    def __init__(
        self,
        results: Sequence[Result],
        metric: str = "",
        failures: Sequence[Failure] = (),
        spread: Spread = "interval",
    ) -> None:
        self.results, self.failures, self.spread = list(results), list(failures), spread
        self.metric = metric or self.evaluation.headline[0]

    @property
    def evaluation(self) -> Evaluation:
        """What tells which metrics the results are about."""
        return evaluation(self.results[0].protocol.get("kind", "classification") if self.results else "classification")

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, i: Any) -> Any:  # noqa: ANN401 (an index or a slice)
        return self.results[i]

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def groups(self) -> dict[str, dict[int, list[Result]]]:
        """Results by method, in the order they came, and by shots; of a sequence of tasks those after the last."""
        out: dict[str, dict[int, list[Result]]] = {}
        last: dict[Any, int] = {}
        for r in self.results:
            last[r.method, r.protocol_hash] = max(r.step, last.get((r.method, r.protocol_hash), 0))
        for r in self.results:
            if r.step != last[r.method, r.protocol_hash]:
                continue
            out.setdefault(r.method, {}).setdefault(r.shots, []).append(r)
        return out

    def shots(self) -> list[int]:
        """All numbers of shots."""
        return sorted({r.shots for r in self.results} | {f.shots for f in self.failures})

    def by_dataset(self) -> dict[str, Table]:
        """A table for each dataset, in the order they came."""
        out: dict[str, list[Result]] = {}
        for r in self.results:
            out.setdefault(str(r.protocol.get("dataset", "")), []).append(r)
        lost = {name: [f for f in self.failures if str(f.protocol.get("dataset", "")) == name] for name in out}
        tables = {name: Table(results, self.metric, lost[name], self.spread) for name, results in out.items()}
        return {name: table.kept_by(self.keeper) for name, table in tables.items()}

    def one_protocol(self, apart: frozenset[str] = frozenset()) -> None:
        """Everything here may be averaged.

        Args:
            apart: fields of the protocol that may differ.

        Raises:
            ValueError: when two results come from different protocols, naming the first field that differs.
        """
        for r in self.results[1:]:
            ours, theirs = self.results[0].protocol, r.protocol
            for name in sorted({*ours, *theirs} - apart):
                if ours.get(name) != theirs.get(name):
                    others = [n for n in {*ours, *theirs} - apart - {name} if ours.get(n) != theirs.get(n)]
                    apart_alone = not others and name != "kind"  # kinds have no metric in common
                    way = f"--by {name} sets them side by side" if apart_alone else "--where KEY=VALUE takes some"
                    raise ValueError(
                        f"results must share one protocol to stand in one table; got {name} = {ours.get(name)!r} "
                        f"and {theirs.get(name)!r}; adaptkit compare {way}"
                    )

    def cells(self, metrics: Sequence[str] = ()) -> list[list[str]]:
        """Head and rows, as text: a column for each number of shots or, where there is one, for each metric."""
        self.one_protocol()
        shown = [(k, self.metric, true_heading(k, self.results) or self.metric) for k in self.shots()]
        if metrics and len(shown) == 1:
            shown = [(shown[0][0], metric, metric) for metric in metrics]
        head = ["method", *(title for *_, title in shown), "trained", "extract s", "fit s", "predict s"]
        groups = self.groups()
        names = short_names(self.labels())
        rows = [[*self._named(name, names[name], groups.get(name, {}), shown)] for name in names]
        return [head, *rows]

    def labels(self) -> list[str]:
        """Of every row, the method with its options; those that only failed come last."""
        return list(dict.fromkeys([*self.groups(), *(f.method for f in self.failures)]))

    def notes(self) -> list[str]:
        """What stands below the rows: options that they are named without, and searches that ended at an edge."""
        return [*map(line, option_notes(self.labels())), *edge_lines(self.results)]

    def _named(
        self, name: str, short: str, by_shots: dict[int, list[Result]], shown: Sequence[tuple[int, str, str]]
    ) -> Iterator[str]:
        """One method's row."""
        all_ = [r for results in by_shots.values() for r in results]
        yield short + (" (oracle)" if any(r.oracle for r in all_) else "")
        for k, metric, _ in shown:
            lost = sum((f.method, f.shots) == (name, k) for f in self.failures)
            found = by_shots.get(k, [])
            yield (
                "failed"
                if lost and not found
                else spread_text(found, metric, self.spread) + marked(found) + f" ({lost} failed)" * (lost > 0)
            )
        trained = sorted({r.parameters for r in all_})
        yield "" if not trained else f"{trained[0]:,}" + f" to {trained[-1]:,}" * (len(trained) > 1)
        for key in ("extract", "fit", "predict"):
            yield f"{mean(r.seconds.get(key, 0.0) for r in all_):.2f}" if all_ else ""

    def text(self) -> str:
        """The table for a terminal; one for each dataset, where there are several."""
        tables = self.by_dataset()
        if len(tables) < 2:
            return "\n\n".join([columns(self.cells()), *self.notes(), *self.sequences()])
        return "\n\n".join(f"{line(name)}: {unit_of(self.metric)}\n\n{t.text()}" for name, t in tables.items())

    def sequences(self) -> list[str]:
        """What was remembered of a sequence of tasks, by method and shots, as text; nothing where there is none."""
        steps: dict[tuple[str, int], list[Result]] = {}
        for r in self.results:
            if r.step:
                steps.setdefault((r.method, r.shots), []).append(r)
        return [
            f"{' '.join(filter(None, (line(m), heading(k))))}\n{as_lines(found)}" for (m, k), found in steps.items()
        ]

    def frame(self) -> DataFrame:
        """A pandas table with a row for each cell and metric."""
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError("frame() needs pandas; pip install pandas") from error
        return DataFrame(
            {
                "dataset": r.protocol.get("dataset"),
                "backbone": r.protocol.get("backbone"),
                "method": r.method,
                "shots": plain_shots(r.shots),
                "seed": r.seed,
                **({"step": r.step} if any(each.step for each in self.results) else {}),
                "metric": metric,
                "value": value,
                "oracle": r.oracle,
                "parameters": r.parameters,
                **{name: r.seconds.get(name) for name in ("extract", "fit", "predict")},
                "memory": r.memory,
                "protocol": r.protocol_hash,
            }
            for r in self.results
            for metric, value in r.metrics.items()
        )

    def plot(self, title: str = "") -> Figure:
        """The metric against shots, with a band for each method; bars where there is one number of shots."""
        from adaptkit.report.plot import figure, of_table

        self.one_protocol()
        return figure(of_table(self, title))

    def plot_recall(self, title: str = "") -> Figure:
        """Of a search, recall among the first K items, for K from 1 to 50, with a band for each method."""
        from adaptkit.report.recall import recall_figure

        self.one_protocol()
        return recall_figure(self, title)

    def _repr_html_(self) -> str:
        return "".join(
            (f"<p>{escape(name)}</p>" if name else "")
            + html_table(table.cells())
            + "".join(f"<p>{escape(line)}</p>" for line in table.notes())
            + "".join(f"<pre>{escape(text)}</pre>" for text in table.sequences())
            for name, table in self.by_dataset().items()
        )

    def __repr__(self) -> str:
        return self.text()


def had(shots: int, results: Sequence[Result]) -> str:
    """Labelled images of a class that there truly were, where these are not as many as the shots; "" where they are."""
    counts = {n for r in results if r.shots == shots for n in class_counts(r)}
    if not shots or not counts or counts == {shots}:
        return ""
    return str(max(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def true_heading(shots: int, results: Sequence[Result]) -> str:
    """A column's heading, with the true number of images where it is another."""
    there = had(shots, results)
    return f"{heading(shots)} ({there} had)" if there else heading(shots)


def fewer(results: Sequence[Result]) -> list[str]:
    """A line for each number of shots that classes did not have."""
    every = {k: had(k, results) for k in sorted({r.shots for r in results})}
    return [f"{heading(k)}: classes had {there} images each" for k, there in every.items() if there]


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, the first the head, as an HTML table."""
    first = "".join(f"<th>{escape(c)}</th>" for c in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows[1:])
    return f"<table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table>"


def spread_text(results: Sequence[Result], metric: str = "accuracy", spread: Spread = "interval") -> str:
    """Mean of a metric and its spread over seeds, as tables show it."""
    found = score([results], metric)
    return found.text(metric, spread) if found else "-"
