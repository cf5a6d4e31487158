"""``adaptkit run``: recipes to results."""

from __future__ import annotations

from argparse import Namespace

from adaptkit.commands.asked import home, out, recipes
from adaptkit.metrics import KINDS
from adaptkit.table import Table


def command(options: Namespace) -> int:
    """Run recipes and print their tables."""
    from adaptkit import runner
    from adaptkit.plot import plot

    for asked in recipes(options):
        folder = out(options, asked)
        table = runner.run(asked, home=home(options), out=folder, progress=not options.quiet)
        for metric in headlines(table):
            print(f"\n{asked.dataset}: {metric}, %, mean ± 95 % interval over seeds\n")
            print(Table(table.results, metric).text())
        print(
            "\nextract: what computing a method's features costs, whoever asked first; fit and predict: mean per cell"
        )
        print(f"results: {folder}")
        picture = folder / "accuracy.svg"
        if plot(table, picture, f"{asked.dataset}, {asked.backbone}"):
            print(f"plot: {picture}")
        else:
            print("plot: none, matplotlib is not installed; pip install 'adaptkit[demo]'")
    return 0


def headlines(table: Table) -> list[str]:
    """The metrics that a run is about, in the order they came."""
    have = dict.fromkeys(metric for result in table for metric in result.metrics)
    bins = tuple(f"{kind}_accuracy" for kind in KINDS)
    shown = [
        m for m in have if m in bins or m.endswith(("/accuracy", "near/auroc", "near/fpr95", "far/auroc", "far/fpr95"))
    ]
    return ["accuracy"] * ("accuracy" in have) + shown + ["harmonic"] * ("new/accuracy" in have)
