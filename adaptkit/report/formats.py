"""A comparison as Markdown, LaTeX or CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from adaptkit.io import safe
from adaptkit.io.shots import plain_shots
from adaptkit.report.backbones import backbone_line
from adaptkit.report.comparison import AVERAGE, Column, Comparison, quoted
from adaptkit.report.plot import Drawing, drawing
from adaptkit.report.scores import (
    falling,
    heading,
    option_notes,
    over_seeds,
    percent,
    short_names,
    show,
    show_end,
    unit_of,
)
from adaptkit.report.sheets import Sheet, SheetTable, as_latex, as_markdown
from adaptkit.report.significance import LEVEL, Verdict

BEST, WORSE, BETTER = "•", "▼", "▲"
BRACKETS = (
    "in brackets, where it would lie on other test images, at 95 % or more: widened as p is corrected, and so without "
    f"0 exactly where p < {LEVEL}"
)
MEANS = "how often methods that do not differ would lie as far apart, or further"
FIELDS = (
    *("dataset", "method", "shots", "metric", "oracle", "mean", "std", "low", "high", "seeds", "reference"),
    *("difference", "difference_low", "difference_high", "p"),
    *("published", "over_published", "source"),
)


def sheet(comparison: Comparison) -> Sheet:
    """Tables of numbers and of differences, with what their marks mean."""
    quotes, blocks = footnotes(comparison), []
    for name, columns in sections(comparison):
        body = rows(comparison, columns, lambda column, method: number(comparison, column, method, quotes))
        blocks.append(SheetTable(body, name))
        tested = any(cell.verdict for column in columns for cell in comparison.columns[column].values())
        if tested and columns[0] == next(iter(comparison.columns)):  # of further datasets, marks suffice
            body = rows(comparison, columns, lambda column, method: difference(comparison, column, method))
            blocks.append(SheetTable(body, "Differences", explained(comparison), second=True))
    return Sheet(title(comparison), of_backbones(comparison), blocks, below(comparison, quotes))


def markdown(comparison: Comparison) -> str:
    """Tables of numbers and of differences in Markdown, for a program as for a file."""
    return as_markdown(sheet(comparison))


def latex(comparison: Comparison) -> str:
    """Tables with the rules of booktabs, followed by what their marks mean."""
    return as_latex(sheet(comparison))


def text_table(comparison: Comparison) -> str:
    """CSV with a line for each number: unrounded, in the metric's own unit."""
    lines = [["" if value is None else value for value in row.values()] for row in numbers(comparison)]
    return safe.csv_text([FIELDS, *lines])


def numbers(comparison: Comparison) -> list[dict[str, Any]]:
    """Every number with all that belongs to it, unrounded, in the metric's own unit; ``None`` where there is none."""
    out = []
    for column, cells in comparison.columns.items():
        for method, cell in cells.items():
            found, v, q = cell.score, cell.verdict, cell.published
            values = [
                *(column.dataset, method, plain_shots(column.shots), comparison.metric, cell.oracle),
                *(found.mean, found.std, *found.ends, len(found.values) or None, comparison.references[column]),
                *([v.difference, *(v.interval or (None, None)), v.p] if v else [None] * 4),
                *([quoted(q), found.mean - quoted(q), q.source] if q else [None] * 3),
            ]
            out.append(dict(zip(FIELDS, values, strict=True)))
    return out


WRITERS: dict[str, Callable[[Comparison], str]] = {".md": markdown, ".tex": latex, ".csv": text_table}


def title(comparison: Comparison) -> str:
    """What the numbers are."""
    seeds = {len(cell.score.values) for cells in comparison.columns.values() for cell in cells.values()}
    spread = f", {over_seeds(comparison.spread)}" if max(seeds) > 1 else ""
    return f"{titled(comparison)}: {unit_of(comparison.metric)}{spread}"


def of_backbones(comparison: Comparison) -> list[str]:
    """Which backbone the numbers are of."""
    names = dict.fromkeys(r.protocol.get("backbone") for table in comparison.tables.values() for r in table)
    return [backbone_line(str(name)) for name in names if name]


def titled(comparison: Comparison) -> str:
    """The dataset's name, or how many there are."""
    names = list(comparison.tables)
    return names[0] if len(names) == 1 else f"{len(names)} datasets"


def of_comparison(comparison: Comparison) -> Drawing:
    """The picture of a comparison: of its dataset, or of the average over all."""
    dataset = next(iter(comparison.columns)).dataset
    columns = [column for column in comparison.columns if column.dataset == dataset]
    curves = {
        m: {c.shots: cell.score for c in columns if (cell := comparison.columns[c].get(m))} for m in comparison.methods
    }
    ticks = {column.shots: str(plain_shots(column.shots)) for column in columns}
    title = labelled(comparison, dataset)
    return drawing(comparison.metric, title, curves, ticks, of_backbones(comparison), comparison.spread)


def sections(comparison: Comparison) -> Iterator[tuple[str, list[Column]]]:
    """Tables by name: datasets side by side at one number of shots, else one table for each dataset."""
    columns = list(comparison.columns)
    if len({column.shots for column in columns}) == 1 or len(comparison.tables) == 1:
        yield "", columns
        return
    for dataset in dict.fromkeys(column.dataset for column in columns):
        yield labelled(comparison, dataset), [column for column in columns if column.dataset == dataset]


def labelled(comparison: Comparison, dataset: str) -> str:
    """A dataset's name, or what is averaged."""
    return f"average of {len(comparison.tables)} datasets" if dataset == AVERAGE else dataset


def rows(comparison: Comparison, columns: Sequence[Column], text: Callable[[Column, str], str]) -> list[list[str]]:
    """Head and rows of a table."""
    short = short_names(comparison.methods)
    several = len({column.dataset for column in columns}) > 1
    head = [column.dataset if several else heading(column.shots) or comparison.metric for column in columns]
    body = []
    for method in comparison.methods:
        cells = [comparison.columns[column].get(method) for column in columns]
        oracle = " (oracle)" * any(cell is not None and cell.oracle for cell in cells)
        body.append([short[method] + oracle, *(text(column, method) for column in columns)])
    return [["method", *head], *body]


def number(comparison: Comparison, column: Column, method: str, quotes: Sequence[str]) -> str:
    """A score with its mark, and how far it is from what is published."""
    cell = comparison.columns[column].get(method)
    if cell is None:
        return "-"
    metric = comparison.metric
    text = cell.score.text(metric, comparison.spread) + mark(comparison, column, method)
    if (quote := cell.published) is not None:
        away, note = cell.score.mean - quoted(quote), first_source(comparison) + quotes.index(quote.source)
        text += f" ({show(away, metric, '+')} from {show(quoted(quote), metric)} [{note}])"
    return text


def mark(comparison: Comparison, column: Column, method: str) -> str:
    """Whether a method is its column's reference, or differs from it."""
    verdict = comparison.columns[column][method].verdict
    if comparison.references[column] == method:
        return f" {BEST}"
    if verdict is None or not verdict.differs:
        return ""
    return f" {BETTER if (verdict.difference > 0) != falling(comparison.metric) else WORSE}"


def difference(comparison: Comparison, column: Column, method: str) -> str:
    """How far a method is from its column's reference, the interval of that, and p."""
    cell, metric = comparison.columns[column].get(method), comparison.metric
    if comparison.references[column] == method:
        return BEST
    if cell is None or cell.verdict is None:
        return "-"
    return verdict_text(cell.verdict, metric)


def verdict_text(verdict: Verdict, metric: str) -> str:
    """A difference, the interval of it, and p."""
    span = f" [{', '.join(show_end(end, metric) for end in verdict.interval)}]" if verdict.interval else ""
    return f"{show(verdict.difference, metric, '+')}{span}, {chance(verdict.p)}"


def chance(p: float) -> str:
    """A p value, as far as anyone reads it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def explained(comparison: Comparison) -> list[str]:
    """What the table of differences shows, in lines."""
    whom = f" ({short_names(comparison.methods)[comparison.against]})" if comparison.against else ""
    return [f"each row minus {BEST} of the column{whom}, {counted_in(comparison.metric)}; {BRACKETS}", f"p: {MEANS}"]


def counted_in(metric: str) -> str:
    """What differences of a metric are counted in."""
    return "in points of %" if percent(metric) else f"in {metric}"


def legend(comparison: Comparison) -> list[str]:
    """What a reader of the tables must know, in sentences."""
    whom = short_names(comparison.methods)[comparison.against] if comparison.against else "the best of its column"
    lines = [
        f"{BEST} {whom}; {WORSE} worse, {BETTER} better, p < {LEVEL}; without a mark: not told apart, or not tested"
    ]
    verdicts = [v for cells in comparison.columns.values() for cell in cells.values() if (v := cell.verdict)]
    if verdicts:
        pairs = "pairs with the reference" if comparison.against else "pairs of methods"
        lines.append(
            f"p: {'; '.join(sorted({v.test for v in verdicts}))}; corrected by Holm's rule for all {pairs} in a column"
        )
    if any(v.interval for v in verdicts):
        lines.append("differences are over images, each with its answers on all seeds; ± is over seeds")
    if comparison.metric == "harmonic":
        lines.append("harmonic: 2bn/(b + n) of accuracy on base and on new classes, averaged before it is taken")
    if any(cell.oracle for cells in comparison.columns.values() for cell in cells.values()):
        lines.append("oracle: hyperparameters were chosen on the test images")
    return [*lines, *comparison.notes()]


def below(comparison: Comparison, quotes: Sequence[str]) -> list[str]:
    """What stands below tables: the legend, the options that rows are named without, and sources."""
    sources = (f"[{i}] {quote}" for i, quote in enumerate(quotes, first_source(comparison)))
    return [*legend(comparison), *option_notes(comparison.methods), *sources]


def first_source(comparison: Comparison) -> int:
    """The number of the first source, behind those of notes on options."""
    return 1 + sum(note.startswith("[") for note in option_notes(comparison.methods))


def footnotes(comparison: Comparison) -> list[str]:
    """What is quoted, each source once."""
    cells = [cell for column in comparison.columns.values() for cell in column.values()]
    return list(dict.fromkeys(cell.published.source for cell in cells if cell.published))
