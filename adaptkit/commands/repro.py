"""``adaptkit repro``: whether stored numbers come out again."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from adaptkit.commands.as_json import json_alone
from adaptkit.commands.requested import home_folder, load_files
from adaptkit.io.safe import line
from adaptkit.io.shots import ALL_SHOTS
from adaptkit.runs.failures import read_failures
from adaptkit.runs.repro import Rerun, Stored, run_again, stored_cells

UNKNOWN_BATCH = (
    "no record names the size of their batches, on which last digits depend; an empty --home computes them anew, "
    "in batches of the recipe's size"
)


def command(options: Namespace) -> int:
    """Run stored records again; 1 where some are not equal, or could not be run."""
    load_files(options)
    home = home_folder(options).absolute()
    folder = (options.run if options.run.exists() else home / "results" / options.run).absolute()
    cells, wrong = stored_cells(folder)
    some = cells_asked(cells, options)
    found = list[Rerun]()
    with json_alone(options.json) as answer:
        print(f"{len(cells)} cells, of which {len(some)} are run again; they took {took(some):.0f} s then")
        if failed := len([*read_failures(folder)]):
            print(f"{failed} cells had failed, and have no numbers")
        for why in wrong:
            print(line(f"damaged    {why}"))
        for again in run_again(folder, some, home):
            print(line(str(again)), flush=True)
            found.append(again)
        counts = Counter(again.status for again in found)
        print(f"{counts['equal']} equal, {counts['different']} different, {counts['not run']} not run")
        if counts["different"]:
            print(line(f"features that {home} had were read as stored; {UNKNOWN_BATCH}"))
        if options.json:
            answer({"run": folder, "damaged": wrong, "records": [asdict(again) for again in found]})
    return int(bool(wrong) or counts["equal"] < len(found))


def cells_asked(cells: Sequence[Stored], options: Namespace) -> list[Stored]:
    """The cells that the options choose, a sample of them evenly spread.

    Raises:
        ValueError: where they choose none.
    """
    shots = ALL_SHOTS if options.shots == "all" else options.shots and int(options.shots)
    seed = options.seed and int(options.seed)
    some = [
        cell
        for cell in cells
        if options.method in ("", cell[0].method, cell[0].method.partition("(")[0])
        and shots in (None, cell[0].shots)
        and seed in (None, cell[0].seed)
    ]
    if not some and cells:
        known = ", ".join(dict.fromkeys(cell[0].method for cell in cells))
        raise ValueError(f"--method, --shots and --seed must leave a cell; got none, of {known}")
    if options.sample is None or options.sample >= len(some):
        return some
    if options.sample < 1:
        raise ValueError(f"--sample must be at least 1; got {options.sample}")
    return [some[i * len(some) // options.sample] for i in range(options.sample)]


def took(cells: Sequence[Stored]) -> float:
    """Seconds that some cells took, without the features, which are read where they are still there."""
    return sum(seconds for cell in cells for each in cell for key, seconds in each.seconds.items() if key != "extract")
