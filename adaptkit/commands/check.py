"""``adaptkit check``: the contract."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from adaptkit.commands.as_json import json_alone
from adaptkit.commands.requested import load_files
from adaptkit.runs import plugins


def command(options: Namespace) -> int:
    """Run the contract."""
    from adaptkit.testing.report import check_methods

    load_files(options)
    what = Path(options.what)
    if what.suffix == ".py":
        owner = plugins.add_file(what)
        names = [n for n in plugins.table("methods") if plugins.owner("methods", n) == owner]
        if not names:
            raise ValueError(f"a plugin to check must bring methods; got {options.what!r}, which brings none")
    else:
        plugins.pick("methods", options.what)
        names = [options.what]
    with json_alone(options.json) as answer:
        found = check_methods(names)
        if options.json:
            answer(found)
    return int(any(one["failed"] for one in found))
