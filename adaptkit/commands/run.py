"""``adaptkit run``: recipes to results."""

from __future__ import annotations

from argparse import Namespace

from adaptkit.commands.asked import home, out, recipes
from adaptkit.table import Table


def command(options: Namespace) -> int:
    """Run recipes and print their tables."""
    from adaptkit import runner
    from adaptkit.plot import plot

    for asked in recipes(options):
        folder = out(options, asked)
        table = runner.run(asked, home=home(options), out=folder, progress=not options.quiet)
        for domain in ("", *asked.domains):
            metric = f"{domain}/accuracy" if domain else "accuracy"
            where = asked.dataset + (f", domain {domain}" if domain else "")
            print(f"\n{where}: {metric}, %, mean ± 95 % interval over seeds\n")
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
