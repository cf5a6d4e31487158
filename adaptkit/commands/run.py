"""``adaptkit run``: recipes to results."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from adaptkit.commands.engine import engine
from adaptkit.commands.requested import home_folder, out, recipes
from adaptkit.commands.tables import print_lines, print_table
from adaptkit.io.safe import line
from adaptkit.methods.evaluation.classification import KINDS
from adaptkit.methods.evaluation.kinds import EVALUATIONS
from adaptkit.report.backbones import backbone_line
from adaptkit.report.json_tables import as_json, run_json
from adaptkit.report.scores import heading, over_seeds, percent
from adaptkit.report.table import Table, fewer, true_heading
from adaptkit.runs.failures import Failure
from adaptkit.runs.recipe import Recipe

if TYPE_CHECKING:
    from adaptkit.runs.engine import Engine

COSTS_SAID = "extract: what computing a method's features costs, whoever asked first; fit and predict: mean per cell"


def command(options: Namespace) -> int:
    """Run recipes and print their tables, and what papers report beside ours; 1 where a cell failed."""
    shown: list[dict[str, Any]] = []
    with redirect_stdout(cast(TextIO, sys.stderr)) if options.json else nullcontext(), engine(options) as workers:
        codes = [run_one(options, requested, workers, shown) for requested in recipes(options)]
    if options.json:
        print(as_json(shown))
    from adaptkit.runs import plugins

    return max(codes, default=0) or int(bool(plugins.broken))


def run_one(options: Namespace, requested: Recipe, workers: Engine | None, shown: list[dict[str, Any]]) -> int:
    """Run one recipe and print what came of it; its table, for programs, is added to `shown`."""
    from adaptkit.report import verify
    from adaptkit.runs import job

    code, folder = 0, out(options, requested)
    found = job.run_recipe(
        requested,
        home=home_folder(options),
        out=folder,
        progress=not options.quiet,
        shard=options.shard or (1, 1),
        recompute=options.recompute,
        engine=workers,
    )
    table = Table(found, failures=found.failures, spread=options.spread)
    shown.append(run_json(requested.name, table, headlines(table)))
    show_tables(requested, table)
    quoted = verify.beside(requested, table)
    if quoted:
        print(f"\n{line(requested.dataset)}: beside published numbers, %\n\n{verify.as_text(quoted)}\n")
    if options.verify and (wrong := verify.verdict(quoted)):
        print(f"{requested.name}: {wrong}")
        code = 1
    print(f"results: {folder}")
    draw_curve(requested, table, folder)
    if found.missing:
        print(f"missing: {found.missing} cells of {requested.name}, which other shards do or a run without --shard")
    for failure in found.failures:
        print(failed(failure, folder))
        code = 1
    return code


def show_tables(requested: Recipe, table: Table) -> None:
    """Print which backbone it is, the table of a run, or one for each metric, and what a reader must know of them."""
    metrics, shots = headlines(table), table.shots()
    if not shots:
        return
    print()
    print_lines([backbone_line(requested.backbone)])
    for some in [metrics] if len(shots) == 1 else [[metric] for metric in metrics]:
        what = true_heading(shots[0], table.results) if len(shots) == 1 else some[0]
        what = ", ".join(filter(None, [what, percentages(some)]))
        print(f"\n{line(requested.dataset)}: {what}, {over_seeds(table.spread)}\n")
        print_table(Table(table.results, some[0], table.failures, table.spread).cells(some))
    for text in table.sequences():
        print(f"\n{text}")
    print()
    print_lines([COSTS_SAID, *fewer(table), *table.notes()])


def percentages(metrics: Sequence[str]) -> str:
    """What metrics that stand in one table are counted in; "" where none is a percentage."""
    plain = [metric for metric in metrics if not percent(metric)]
    return "" if len(plain) == len(metrics) else "%" + f" but for {', '.join(plain)}" * bool(plain)


def draw_curve(requested: Recipe, table: Table, folder: Path) -> None:
    """Plot the first metric of the table against shots, or bars of it; of a search the recall curves, too."""
    from adaptkit.report.plot import plot
    from adaptkit.report.recall import draw_recall
    from adaptkit.report.table import Table

    if not len(table):
        return
    metric = headlines(table)[0]
    picture = folder / f"{metric.replace('/', '_')}.svg"
    shown = Table(table.results, metric, table.failures, table.spread)
    try:
        drawn = plot(shown, picture, title := f"{requested.dataset}, {requested.backbone}")
        recall = draw_recall(shown, folder, title) if drawn else None
    except OSError as error:  # the table is what was asked for
        print(f"plot: none, {picture.parent}: {error.strerror}")
        return
    if drawn:
        print(f"plot: {picture}" + f"\nplot: {recall}" * (recall is not None))
    else:
        print("plot: none, matplotlib is not installed; pip install 'adaptkit-vlm[demo]'")


def failed(failure: Failure, folder: Path) -> str:
    """One line for a cell that failed."""
    where = f"{failure.method}, {heading(failure.shots) or 'no shots'}, seed {failure.seed}"
    return line(f"failed: {where}: {failure.cause}; see {folder / failure.file}")


def headlines(table: Table) -> list[str]:
    """The metrics that a run is about, in the order they came."""
    groups = [group for by_shots in table.groups().values() for group in by_shots.values()]
    have = dict.fromkeys(metric for group in groups for result in group for metric in result.metrics)
    kind = table.evaluation
    beside = {f"{bin}_accuracy" for bin in KINDS}
    beside |= {f"{side}/{metric}" for side in ("near", "far") for metric in EVALUATIONS["detection"].headline}
    beside = beside if kind.kind == "classification" else set()
    shown = [m for m in have if m in beside or ("/" in m and m.rpartition("/")[2] in kind.headline)]
    first = [m for m in kind.headline if m in have or (m == kind.headline[0] and not have)]
    return first + shown + ["harmonic"] * ("new/accuracy" in have)
