"""A comparison as Markdown, LaTeX or CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from adaptkit.io import safe
from adaptkit.io.shots import plain_shots
from adaptkit.report.comparison import AVERAGE, Column, Comparison, quoted
from adaptkit.report.scores import falling, heading, short_names, show, show_end, unit_of
from adaptkit.report.significance import LEVEL

BEST, WORSE, BETTER = "•", "▼", "▲"
FIELDS = (
    *("dataset", "method", "shots", "metric", "oracle", "mean", "std", "low", "high", "seeds", "reference"),
    *("difference", "difference_low", "difference_high", "p"),
    *("published", "over_published", "source"),
)


def markdown(comparison: Comparison) -> str:
    """Tables of numbers and of differences, for a terminal as for a file."""
    quotes = footnotes(comparison)
    lines = [f"# {safe.in_markdown(title(comparison))}"]
    for name, columns in sections(comparison):
        lines += ["", f"## {safe.in_markdown(name)}", ""] if name else [""]
        lines += aligned(rows(comparison, columns, lambda column, method: number(comparison, column, method, quotes)))
        tested = any(cell.verdict for column in columns for cell in comparison.columns[column].values())
        if tested and columns[0] == next(iter(comparison.columns)):  # of further datasets, marks suffice
            lines += ["", "Differences:", ""]
            lines += aligned(rows(comparison, columns, lambda column, method: difference(comparison, column, method)))
    return "\n".join([*lines, "", *(f"- {safe.item(line)}" for line in below(comparison, quotes)), ""])


def latex(comparison: Comparison) -> str:
    """Tables with the rules of booktabs, each followed by what its marks mean."""
    quotes = footnotes(comparison)
    out = [f"% {safe.in_latex(title(comparison))}; needs \\usepackage{{booktabs}}"]
    for name, columns in sections(comparison):
        head, *body = rows(comparison, columns, lambda column, method: number(comparison, column, method, quotes))
        lines = [" & ".join(map(safe.in_latex, row)) + r" \\" for row in (head, *body)]
        out += ["", f"% {safe.in_latex(name)}"] if name else [""]
        out += [f"\\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\toprule", lines[0], r"\midrule", *lines[1:]]
        out += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(
        [
            *out,
            "",
            *(rf"\par\footnotesize {safe.in_latex(line)}" for line in below(comparison, quotes)),
            "",
        ]
    )


def text_table(comparison: Comparison) -> str:
    """CSV with a line for each number: unrounded, in the metric's own unit."""
    out: list[Sequence[object]] = [FIELDS]
    for column, cells in comparison.columns.items():
        for method, cell in cells.items():
            score, half = cell.score, cell.score.half
            span = ("", "") if half is None else (score.mean - half, score.mean + half)
            out.append(
                [
                    *(column.dataset, method, plain_shots(column.shots), comparison.metric, cell.oracle),
                    *(score.mean, score.std, *span, len(score.values) or "", comparison.references[column]),
                    *([v.difference, *(v.interval or ("", "")), v.p] if (v := cell.verdict) else [""] * 4),
                    *([quoted(q), score.mean - quoted(q), q.source] if (q := cell.published) else [""] * 3),
                ]
            )
    return safe.csv_text(out)


WRITERS: dict[str, Callable[[Comparison], str]] = {".md": markdown, ".tex": latex, ".csv": text_table}


def title(comparison: Comparison) -> str:
    """What the numbers are."""
    seeds = {len(cell.score.values) for cells in comparison.columns.values() for cell in cells.values()}
    spread = ", mean ± 95 % interval over seeds (Student's t)" if max(seeds) > 1 else ""
    return f"{titled(comparison)}: {unit_of(comparison.metric)}{spread}"


def titled(comparison: Comparison) -> str:
    """The dataset's name, or how many there are."""
    names = list(comparison.tables)
    return names[0] if len(names) == 1 else f"{len(names)} datasets"


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
    text = cell.score.text(metric) + mark(comparison, column, method)
    if (quote := cell.published) is not None:
        away, note = cell.score.mean - quoted(quote), quotes.index(quote.source) + 1
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
    verdict = cell.verdict
    span = f" [{', '.join(show_end(end, metric) for end in verdict.interval)}]" if verdict.interval else ""
    return f"{show(verdict.difference, metric, '+')}{span}, {chance(verdict.p)}"


def chance(p: float) -> str:
    """A p value, as far as anyone reads it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


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
        lines.append(
            "differences: [from, to] is over images, each with its answers on all seeds, at 95 % or more: widened as p was "
            f"corrected, so that it leaves out 0 exactly where p < {LEVEL}; ± is over seeds"
        )
    if comparison.metric == "harmonic":
        lines.append("harmonic: 2bn/(b + n) of accuracy on base and on new classes, averaged before it is taken")
    if any(cell.oracle for cells in comparison.columns.values() for cell in cells.values()):
        lines.append("oracle: hyperparameters were chosen on the test images")
    return [*lines, *comparison.notes()]


def below(comparison: Comparison, quotes: Sequence[str]) -> list[str]:
    """What stands below tables: the legend, the options that rows are named without, and sources."""
    cut = [method for method, short in short_names(comparison.methods).items() if method != short]
    named = [f"with options: {', '.join(cut)}"] if cut else []
    return [*legend(comparison), *named, *(f"[{i}] {quote}" for i, quote in enumerate(quotes, 1))]


def footnotes(comparison: Comparison) -> list[str]:
    """What is quoted, each source once."""
    cells = [cell for column in comparison.columns.values() for cell in column.values()]
    return list(dict.fromkeys(cell.published.source for cell in cells if cell.published))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text, the first the head, as a table in Markdown that a terminal shows well."""
    escaped = [[safe.in_markdown(text) for text in row] for row in rows]
    widths = [max(map(len, texts)) for texts in zip(*escaped, strict=True)]
    lines = [f"| {' | '.join(text.ljust(w) for text, w in zip(row, widths, strict=True))} |" for row in escaped]
    return [lines[0], f"|{'|'.join('-' * (w + 2) for w in widths)}|", *lines[1:]]
