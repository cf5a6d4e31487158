"""Runs compared: means over seeds and datasets, who differs from whom, and what papers report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from adaptkit.io.errors import must_be
from adaptkit.io.shots import plain_shots
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.report.runs import Run
from adaptkit.report.scores import HARMONIC, Score, Spread, falling, parts, percent, score
from adaptkit.report.significance import OverDatasets, OverImages, Pair, Verdict, decidable, verdicts
from adaptkit.report.table import Table
from adaptkit.runs.published import Published
from adaptkit.runs.results import Result

AVERAGE = "average"
OF_DATASET = frozenset({"dataset", "images", "prompts", "tests"})  # what a protocol says about a dataset alone


@dataclass(frozen=True, order=True)
class Column:
    """A dataset, or the average over all, at one number of shots."""

    dataset: str
    shots: int


@dataclass(frozen=True)
class Entry:
    """One method's number in one column.

    Attributes:
        score: its mean over seeds.
        oracle: some hyperparameter was chosen on the test images.
        verdict: against the column's reference, where that is another method and the metric can be tested.
        published: what somebody reports.
    """

    score: Score
    oracle: bool = False
    verdict: Verdict | None = None
    published: Published | None = None


class Comparison:
    """Runs compared in one metric.

    Args:
        runs: of one dataset or several, under one protocol but for what belongs to the dataset.
        metric: as records name it, or ``"harmonic"``, the harmonic mean of base-to-new; "" is that which tables show.
        against: the method to hold the others against, by its label or its name; "" is the best of each column.
        spread: what stands behind a ±: the 95 % "interval" of the mean over seeds, or the standard deviation, "std".

    Attributes:
        metrics: all that the results have.
        tables: results by dataset.
        methods: labels, in the order of the runs.
        columns: of each, its methods' cells; the average over datasets comes first.
        references: of each column, whom its methods are held against.

    Raises:
        ValueError: when protocols differ, or a name is not among the results.
    """

    def __init__(self, runs: Sequence[Run], metric: str = "", against: str = "", spread: Spread = "interval") -> None:
        results = Table([result for run in runs for result in run.results])
        metric = metric or results.metric
        self.runs, self.metric, self.tables, self.spread = runs, metric, results.by_dataset(), spread
        for table in self.tables.values():
            table.one_protocol()
        results.one_protocol(apart=OF_DATASET)
        self.metrics = metrics(results)
        if metric not in self.metrics:
            raise ValueError(must_be("metric", self.metrics, metric))
        self._groups = {name: table.groups() for name, table in self.tables.items()}
        self.methods = list(results.groups())
        self.against = self._label(against) if against else ""
        self.references: dict[Column, str] = {}
        averages = [AVERAGE] if len(self.tables) > 1 else []
        columns = [Column(name, k) for name in (*averages, *self.tables) for k in results.shots()]
        self.columns = {column: cells for column in columns if (cells := self._cells(column))}

    def notes(self) -> list[str]:
        """What a reader of the numbers must know, in sentences."""
        notes = [note for run in self.runs for note in run.notes]
        for name, table in self.tables.items():
            seeds = {k: len({r.seed for r in table if r.shots == k}) for k in table.shots()}
            for method, by_shots in table.groups().items():
                few = [
                    f"{len(g)} of {seeds[k]} seeds at {plain_shots(k)} shots"
                    for k, g in by_shots.items()
                    if len(g) < seeds[k]
                ]
                notes += [f"{method} has {', '.join(few)} on {name}"] if few else []
        for method in self.methods:
            gaps: dict[str, list[int]] = {}
            for k in sorted({column.shots for column in self.columns}):
                there = [name for name in self.tables if score(self.rows(Column(name, k), method), self.metric)]
                if there and (missing := [name for name in self.tables if name not in there]):
                    gaps.setdefault(", ".join(missing), []).append(k)
            notes += [
                f"no average of {method} at {', '.join(str(plain_shots(k)) for k in ks)} shots: none on {names}"
                for names, ks in gaps.items()
            ]
        averages = [cells for column, cells in self.columns.items() if column.dataset == AVERAGE and len(cells) > 1]
        if averages and not any(cell.verdict for cells in averages for cell in cells.values()):
            fewer = "" if self.against else "; --against METHOD makes fewer comparisons"
            notes.append(f"averages are not tested: {len(self.tables)} datasets are too few for so many methods{fewer}")
        return notes

    def _label(self, method: str) -> str:
        """A method's label, by label or by name."""
        named = [m for m in self.methods if m == method] or [m for m in self.methods if plain(m) == method]
        if len(named) != 1:
            raise ValueError(must_be("the method to compare against", named or self.methods, method))
        return named[0]

    def rows(self, column: Column, method: str) -> list[list[Result]]:
        """A method's results, dataset by dataset; an empty list for a dataset that has none."""
        names = self.tables if column.dataset == AVERAGE else [column.dataset]
        return [self._groups[name].get(method, {}).get(column.shots, []) for name in names]

    def _cells(self, column: Column) -> dict[str, Entry]:
        rows = {m: self.rows(column, m) for m in self.methods}
        scores = {m: s for m in self.methods if (s := score(rows[m], self.metric))}
        if not scores:
            return {}
        oracle = {m: any(r.oracle for group in rows[m] for r in group) for m in scores}
        fair = [m for m in scores if not oracle[m]] or list(scores)
        best = (min if falling(self.metric) else max)(fair, key=lambda m: scores[m].mean)
        reference = self.references[column] = self.against or best
        found: dict[str, Verdict] = {}
        if reference in scores:
            pair = self._over_datasets if column.dataset == AVERAGE else self._over_images
            found = verdicts(pair({m: rows[m] for m in scores}), list(scores), reference, chosen=not self.against)
        return {m: Entry(s, oracle[m], found.get(m), self._published(column, m)) for m, s in scores.items()}

    def _over_datasets(self, rows: Mapping[str, Sequence[Sequence[Result]]]) -> Pair:
        """What tells methods apart that were measured on many datasets."""
        means = {m: [s.mean for group in groups if (s := score([group], self.metric))] for m, groups in rows.items()}
        pairs = len(rows) - 1 if self.against else comb(len(rows), 2)

        def pair(one: str, two: str) -> OverDatasets | None:
            gaps = [a - b for a, b in zip(means[one], means[two], strict=True)]
            return OverDatasets(gaps) if decidable(len(gaps), pairs) else None

        return pair

    def _over_images(self, rows: Mapping[str, Sequence[Sequence[Result]]]) -> Pair:
        """What tells methods apart on one dataset."""
        answers = {m: [right(groups[0], part) for part in parts(self.metric)] for m, groups in rows.items()}

        def pair(one: str, two: str) -> OverImages | None:
            sides = []
            for ours, theirs in zip(answers[one], answers[two], strict=True):
                if not (seeds := sorted(ours.keys() & theirs.keys())):
                    return None
                sides.append((np.stack([ours[s] for s in seeds]), np.stack([theirs[s] for s in seeds])))
            return OverImages(sides)

        return pair

    def _published(self, column: Column, method: str) -> Published | None:
        """The entry that is most exact about method and shots."""
        backbone = next(iter(self.tables.values()))[0].protocol.get("backbone")
        quotes = [
            quote
            for run in self.runs
            for quote in run.published
            if column.dataset in (AVERAGE, run.dataset)
            and quote.datasets == (len(self.tables) if column.dataset == AVERAGE else 1)
            and quote.names(method, self.methods)
            and (quote.metric, quote.backbone) == (self.metric, backbone)
            and quote.shots in (0, column.shots)
        ]
        return max(quotes, key=lambda quote: (quote.method == method, quote.shots > 0), default=None)


def metrics(results: Sequence[Result]) -> list[str]:
    """Every metric that some result has, and the harmonic mean where it can be formed."""
    found = list(dict.fromkeys(name for result in results for name in result.metrics))
    return [*found, *["harmonic"] * (set(HARMONIC) <= set(found))]


def plain(label: str) -> str:
    """A method's name, without its options."""
    return label.partition("(")[0]


def right(results: Sequence[Result], metric: str) -> dict[int, np.ndarray]:
    """By seed, how right each image's answer is, ``(N,)``; nothing for metrics that are no mean of these.

    Booleans where answers are right or wrong; else numbers in the metric's unit.
    """
    test, _, name = metric.rpartition("/")
    found = {}
    for r in results:
        told = r.right.get(test)
        if not told or name != evaluation(r.protocol.get("kind", "classification")).paired:
            continue
        if isinstance(told, str):
            found[r.seed] = np.frombuffer(told.encode(), np.uint8) == ord("1")
        else:
            found[r.seed] = np.asarray(told) * (-1 if falling(name) else 1)
    return found


def quoted(quote: Published) -> float:
    """A published number in the metric's own unit."""
    return quote.value / 100 if percent(quote.metric) else quote.value
