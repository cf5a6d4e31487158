"""What a page of a comparison says about a sequence of tasks: accuracies after each, forgetting and transfer."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from adaptkit.io.notices import notice
from adaptkit.report.comparison import Comparison
from adaptkit.report.errors.sections import DEEP, matrix, section
from adaptkit.report.sequence import accuracies, share, summed_up, whole_accuracies
from adaptkit.runs.results import Result


def sequence_templates(comparison: Comparison) -> str:
    """The matrix of each method and number of shots, in a ``<template>`` that a script shows as it is chosen."""
    out = []
    for dataset, table in comparison.tables.items():
        cells: dict[tuple[str, int], list[Result]] = {}
        for result in table:
            if result.step:
                cells.setdefault((result.method, result.shots), []).append(result)
        for (method, shots), results in cells.items():
            where = f'data-dataset="{escape(dataset)}" data-method="{escape(method)}" data-shots="{shots}"'
            try:
                out.append(f'<template data-part="sequence" {where}>{sequence_section(results)}</template>')
            except ValueError as error:  # records of some steps alone
                notice(f"{method}: {error}; the page says nothing of its sequence")
    return "".join(out)


def sequence_section(results: Sequence[Result]) -> str:
    """The matrix of one method's accuracies: a row after each task, a column for the classes of each."""
    rows, whole = accuracies(results), whole_accuracies(results)
    seeds = len({result.seed for result in results})
    names = [*(f"classes of task {j}" for j in range(1, len(rows) + 1)), "all so far"]
    body = [
        f'<tr><th scope="row">after task {k}</th>{"".join(accuracy_cell(value) for value in (*row, all_))}</tr>'
        for k, (row, all_) in enumerate(zip(rows, whole, strict=True), 1)
    ]
    said = "; ".join(f"{name} {share(value)}" for name, value in summed_up(results).items())
    over = f"accuracy among the classes seen so far, %, mean over {seeds} seed{'s' * (seeds > 1)}"
    return section("Accuracy after each task", f"{over}; {said}", matrix("Accuracies", "", names, body))


def accuracy_cell(value: float | None) -> str:
    """One accuracy, shaded; nothing where nothing was asked."""
    if value is None:
        return "<td></td>"
    return f'<td class="hit{" deep" * (value > DEEP)}" style="--s:{value:.2f}">{share(value)}</td>'
