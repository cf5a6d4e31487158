"""Two backbones, two datasets or whatever else two runs differ in: the same methods side by side, with differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adaptkit.io.errors import must_be
from adaptkit.io.shots import plain_shots
from adaptkit.report import formats
from adaptkit.report.backbones import backbone_line
from adaptkit.report.comparison import OF_DATASET, Column, Entry, metrics, right
from adaptkit.report.runs import Run
from adaptkit.report.scores import Spread, heading, option_notes, over_seeds, parts, score, short_names, unit_of
from adaptkit.report.sheets import Sheet, SheetTable
from adaptkit.report.significance import OverImages, Unpaired, holm_steps
from adaptkit.report.table import Table
from adaptkit.report.where import OF_RECORDS, texts
from adaptkit.runs.results import Result

APART_WITH: Mapping[str, frozenset[str]] = {
    "backbone": frozenset({"fingerprint", "preprocess"}),
    "dataset": OF_DATASET,
}
"""What differs in a protocol whenever such a part of it does."""


class Across:
    """The same methods, side by side by what differs between results.

    Args:
        runs: whose protocols differ in one thing, or in datasets too.
        key: that thing, as a protocol names it, e.g. ``"backbone"``.
        metric: as records name it; "" is that which tables show.
        against: the value whose numbers are subtracted from the others'; "" is the first.
        spread: what stands behind a ±.

    Attributes:
        values: that the key has, in the order they came, the one held against first.
        methods: labels, in the order they came.
        sections: by dataset ("" where datasets are what differs) and shots, each method's cells by value; only where
            some method has several.

    Raises:
        ValueError: when the protocols differ in another thing, the key has one value, or no method has several.
    """

    def __init__(
        self, runs: Sequence[Run], key: str, metric: str = "", against: str = "", spread: Spread = "interval"
    ) -> None:
        table = Table([result for run in runs for result in run.results])
        self.runs, self.key, self.metric, self.spread = runs, key, metric or table.metric, spread
        self.values = differing(table.results, key)
        if against and against not in self.values:
            raise ValueError(must_be("--against, with --by, is a value of its key and", self.values, against))
        base = against or self.values[0]
        self.values.sort(key=lambda value: value != base)
        table.one_protocol(apart=OF_DATASET | {key} | APART_WITH.get(key, frozenset()))
        if self.metric not in (known := metrics(table.results)):
            raise ValueError(must_be("metric", known, self.metric))
        self.groups: dict[str, dict[str, dict[str, dict[int, list[Result]]]]] = {}  # dataset, value, method, shots
        for dataset, part in (("", table),) if key == "dataset" else table.by_dataset().items():
            for value in self.values:
                ours = Table([r for r in part if value_of(r, key) == value])
                ours.one_protocol()
                self.groups.setdefault(dataset, {})[value] = ours.groups()
        self.methods = list(table.groups())
        columns = [Column(dataset, k) for dataset in self.groups for k in table.shots()]
        found = {column: self._cells(column) for column in columns}
        self.sections = {c: cells for c, cells in found.items() if any(len(by) > 1 for by in cells.values())}
        if not self.sections:
            values = " and ".join(self.values[:2])
            raise ValueError(f"results by {key} must share methods and shots; got none that {values} both have")

    def rows(self, column: Column, method: str, value: str) -> list[Result]:
        """One cell's results, over seeds."""
        return self.groups[column.dataset][value].get(method, {}).get(column.shots, [])

    def _cells(self, column: Column) -> dict[str, dict[str, Entry]]:
        found: dict[str, dict[str, Entry]] = {}
        tests: dict[tuple[str, str], OverImages] = {}
        base = self.values[0]
        for method in self.methods:
            for value in self.values:
                rows = self.rows(column, method, value)
                if (known := score([rows], self.metric)) is None:
                    continue
                found.setdefault(method, {})[value] = Entry(known, any(r.oracle for r in rows))
                if value != base and (test := paired(rows, self.rows(column, method, base), self.metric)):
                    tests[method, value] = test
        each = holm_steps([test.p() for test in tests.values()])
        for ((method, value), test), (p, times) in zip(tests.items(), each, strict=True):
            cell = found[method][value]
            found[method][value] = Entry(cell.score, cell.oracle, test.verdict(base, min(p, 1.0), times))
        return found


def paired(ours: Sequence[Result], theirs: Sequence[Result], metric: str) -> OverImages | None:
    """What tells two cells apart: over the same images where they were tested on the same, else over each one's own."""
    sides = []
    unequal = len({tested_on(r, part) for r in (*ours, *theirs) for part in parts(metric)}) > len(parts(metric))
    for part in parts(metric):
        one, two = right(ours, part), right(theirs, part)
        seeds = [sorted(one.keys() & two.keys()) or sorted(one), sorted(one.keys() & two.keys()) or sorted(two)]
        if not all(seeds):
            return None
        side = np.stack([one[s] for s in seeds[0]]), np.stack([two[s] for s in seeds[1]])
        unequal = unequal or side[0].shape != side[1].shape
        sides.append(side)
    return Unpaired(sides) if unequal else OverImages(sides)


def tested_on(result: Result, metric: str) -> tuple[str, ...]:
    """What tells the images that a metric is of from others."""
    test = metric.rpartition("/")[0]
    return test, str(result.protocol.get("images")), str(result.protocol.get("tests", {}).get(test))


def value_of(result: Result, key: str) -> str:
    """What a result has under a key."""
    return ", ".join(texts(result, key)) or "none"


def differing(results: Sequence[Result], key: str) -> list[str]:
    """The values of a key.

    Raises:
        ValueError: when no protocol has the key, or all have the same under it.
    """
    keys = list(dict.fromkeys(name for r in results for name in r.protocol if name not in OF_RECORDS))
    several = [name for name in keys if len({value_of(r, name) for r in results}) > 1]
    values = list(dict.fromkeys(value_of(r, key) for r in results))
    if key not in keys:
        raise ValueError(must_be("--by", several or keys, key))
    if len(values) < 2:
        there = ", ".join(several) or "nothing"
        raise ValueError(f"--by must name what differs between results, {there}; got {key!r}, {values[0]!r} in all")
    return values


def sheet_across(across: Across) -> Sheet:
    """Tables with a column for each value, and one for each difference to the first."""
    blocks = [SheetTable(section_rows(across, column), section_name(across, column)) for column in across.sections]
    names = ", ".join(name for name in across.groups if name)
    backbones = dict.fromkeys(str(r.protocol.get("backbone")) for run in across.runs for r in run.results)
    title = f"{names + ', ' if names else ''}by {across.key}: {unit_of(across.metric)}, {over_seeds(across.spread)}"
    return Sheet(title, [*map(backbone_line, backbones)], blocks, notes_across(across))


def section_name(across: Across, column: Column) -> str:
    """What one table of several is of."""
    several = len(across.groups) > 1
    return ", ".join(filter(None, [column.dataset if several else "", heading(column.shots)]))


def section_rows(across: Across, column: Column) -> list[list[str]]:
    """Head and rows of one table."""
    first, *others = across.values
    short, body = short_names(across.methods), []
    for method, cells in across.sections[column].items():
        if len(cells) < 2:
            continue
        scores = [cells[v].score.text(across.metric, across.spread) if v in cells else "-" for v in across.values]
        said = [cells[v].verdict if v in cells else None for v in others]
        oracle = " (oracle)" * any(cell.oracle for cell in cells.values())
        differences = [formats.verdict_text(verdict, across.metric) if verdict else "-" for verdict in said]
        body.append([short[method] + oracle, *scores, *differences])
    return [["method", *across.values, *(f"{value} - {first}" for value in others)], *body]


def notes_across(across: Across) -> list[str]:
    """What a reader of the differences must know."""
    verdicts = [
        c.verdict for cells in across.sections.values() for by in cells.values() for c in by.values() if c.verdict
    ]
    lines = []
    if verdicts:
        unit, tests = formats.counted_in(across.metric), "; ".join(sorted({v.test for v in verdicts}))
        lines += [
            f"differences: {unit}; {formats.BRACKETS}; ± is over seeds",
            f"p: {formats.MEANS}; {tests}; corrected by Holm's rule for all differences of a table",
        ]
    if across.key == "dataset":
        lines.append("numbers on two datasets differ as the datasets do: compare how methods are ordered")
    for value in across.values:
        found = {m: {v for cells in across.sections.values() for v in cells.get(m, {})} for m in across.methods}
        lone = [m for m, values in found.items() if values == {value}]
        lines += [f"only under {value}: {', '.join(lone)}"] if lone else []
    return [*lines, *(note for run in across.runs for note in run.notes), *option_notes(across.methods)]


def numbers_across(across: Across) -> list[dict[str, Any]]:
    """Every number with all that belongs to it, as `formats.numbers` has them, and the value that it is of."""
    out = []
    for column, cells in across.sections.items():
        for method, by in cells.items():
            for value, cell in by.items():
                found, v = cell.score, cell.verdict
                values = [
                    *(column.dataset or value, method, plain_shots(column.shots), across.metric, cell.oracle),
                    *(found.mean, found.std, *found.ends, len(found.values) or None, across.values[0]),
                    *([v.difference, *(v.interval or (None, None)), v.p] if v else [None] * 4),
                    *[None] * 3,
                ]
                number = dict(zip(formats.FIELDS, values, strict=True))
                out.append({**number, "by": across.key, "value": value, "test": v.test if v else None})
    return out
