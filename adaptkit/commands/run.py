"""``adaptkit run``: recipes to results."""

from __future__ import annotations

from argparse import Namespace

from adaptkit.commands.requested import home_folder, out, recipes
from adaptkit.io.text import columns
from adaptkit.methods.evaluation.classification import KINDS
from adaptkit.methods.evaluation.kinds import EVALUATIONS
from adaptkit.report.scores import heading
from adaptkit.report.table import Table


def command(options: Namespace) -> int:
    """Run recipes and print their tables, and what papers report beside ours."""
    from adaptkit.report import verify
    from adaptkit.report.plot import plot
    from adaptkit.runs import job

    code = 0
    for requested in recipes(options):
        folder = out(options, requested)
        table = Table(job.run(requested, home=home_folder(options), out=folder, progress=not options.quiet))
        metrics, shots = headlines(table), table.shots()
        for some in [metrics] if len(shots) == 1 else [[metric] for metric in metrics]:
            what = heading(shots[0]) if len(shots) == 1 else some[0]
            print(f"\n{requested.dataset}: {what}, %, mean ± 95 % interval over seeds\n")
            print(columns(Table(table.results, some[0]).cells(some)))
        for text in table.sequences():
            print(f"\n{text}")
        print(
            "\nextract: what computing a method's features costs, whoever asked first; fit and predict: mean per cell"
        )
        if found := verify.beside(requested, table):
            print(f"\n{requested.dataset}: beside published numbers, %\n\n{verify.as_text(found)}\n")
        if options.verify and (wrong := verify.verdict(found)):
            print(f"{requested.name}: {wrong}")
            code = 1
        print(f"results: {folder}")
        picture = folder / "accuracy.svg"
        if len(shots) == 1:
            continue  # a curve has two points
        if plot(table, picture, f"{requested.dataset}, {requested.backbone}"):
            print(f"plot: {picture}")
        else:
            print("plot: none, matplotlib is not installed; pip install 'adaptkit[demo]'")
    return code


def headlines(table: Table) -> list[str]:
    """The metrics that a run is about, in the order they came."""
    groups = [group for by_shots in table.groups().values() for group in by_shots.values()]
    have = dict.fromkeys(metric for group in groups for result in group for metric in result.metrics)
    kind = table.evaluation
    beside = {f"{bin}_accuracy" for bin in KINDS}
    beside |= {f"{side}/{metric}" for side in ("near", "far") for metric in EVALUATIONS["detection"].headline}
    beside = beside if kind.kind == "classification" else set()
    shown = [m for m in have if m in beside or ("/" in m and m.rpartition("/")[2] in kind.headline)]
    return [m for m in kind.headline if m in have] + shown + ["harmonic"] * ("new/accuracy" in have)
