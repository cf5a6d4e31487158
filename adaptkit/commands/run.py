"""``adaptkit run``: recipes to results."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from adaptkit.commands.requested import home_folder, out, recipes
from adaptkit.io.text import columns
from adaptkit.report.scores import heading
from adaptkit.report.table import Table, fewer, true_heading
from adaptkit.runs.failures import Failure
from adaptkit.runs.metrics import KINDS
from adaptkit.runs.recipe import Recipe


def command(options: Namespace) -> int:
    """Run recipes and print their tables, and what papers report beside ours; 1 where a cell failed."""
    from adaptkit.report import verify
    from adaptkit.runs import job

    code, shard = 0, part_of(options.shard)
    for requested in recipes(options):
        folder = out(options, requested)
        found = job.run(
            requested,
            home=home_folder(options),
            out=folder,
            progress=not options.quiet,
            shard=shard,
            recompute=options.recompute,
        )
        table = Table(found, failures=found.failures)
        show(requested, table)
        quoted = verify.beside(requested, table)
        if quoted:
            print(f"\n{requested.dataset}: beside published numbers, %\n\n{verify.as_text(quoted)}\n")
        if options.verify and (wrong := verify.verdict(quoted)):
            print(f"{requested.name}: {wrong}")
            code = 1
        print(f"results: {folder}")
        draw(requested, table, folder)
        if found.missing:
            print(f"missing: {found.missing} cells of {requested.name}, which other shards do or a run without --shard")
        for failure in found.failures:
            print(failed(failure, folder))
            code = 1
    return code


def part_of(text: str) -> tuple[int, int]:
    """Which shard of how many.

    Raises:
        ValueError: unless it is ``I/N`` with I from 1 to N.
    """
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ValueError(f"--shard must be I/N with I from 1 to N, e.g. 1/4; got {text!r}")
    return int(number), int(of)


def show(requested: Recipe, table: Table) -> None:
    """Print the table of a run, or one for each metric, and where classes had fewer images than shots."""
    metrics, shots = headlines(table), table.shots()
    if not shots:
        return
    for some in [metrics] if len(shots) == 1 else [[metric] for metric in metrics]:
        what = true_heading(shots[0], table.results) if len(shots) == 1 else some[0]
        print(f"\n{requested.dataset}: {what}, %, mean ± 95 % interval over seeds\n")
        print(columns(Table(table.results, some[0], table.failures).cells(some)))
    print("\nextract: what computing a method's features costs, whoever asked first; fit and predict: mean per cell")
    for line in fewer(table):
        print(line)


def draw(requested: Recipe, table: Table, folder: Path) -> None:
    """Plot accuracy against shots, where a curve has two points."""
    from adaptkit.report.plot import plot

    picture = folder / "accuracy.svg"
    if len({result.shots for result in table}) < 2:
        return
    if plot(table, picture, f"{requested.dataset}, {requested.backbone}"):
        print(f"plot: {picture}")
    else:
        print("plot: none, matplotlib is not installed; pip install 'adaptkit[demo]'")


def failed(failure: Failure, folder: Path) -> str:
    """One line for a cell that failed."""
    where = f"{failure.method}, {heading(failure.shots) or 'no shots'}, seed {failure.seed}"
    return f"failed: {where}: {failure.cause}; see {folder / failure.file}"


def headlines(table: Table) -> list[str]:
    """The metrics that a run is about, in the order they came."""
    have = dict.fromkeys(metric for result in table for metric in result.metrics)
    bins = tuple(f"{kind}_accuracy" for kind in KINDS)
    shown = [
        m for m in have if m in bins or m.endswith(("/accuracy", "near/auroc", "near/fpr95", "far/auroc", "far/fpr95"))
    ]
    return ["accuracy"] * ("accuracy" in have or not have) + shown + ["harmonic"] * ("new/accuracy" in have)
