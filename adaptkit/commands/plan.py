"""``adaptkit plan``: what a run would compute."""

from __future__ import annotations

from argparse import Namespace

from adaptkit.commands.as_json import json_alone
from adaptkit.commands.requested import home_folder, out, recipes


def command(options: Namespace) -> int:
    """Say what running would compute."""
    from adaptkit.runs.plan import plan_of

    with json_alone(options.json) as answer:
        plans = [plan_of(asked, home=home_folder(options), out=out(options, asked)) for asked in recipes(options)]
        if options.json:
            answer([made.facts() for made in plans])
    for made in plans if not options.json else ():
        print(made)
    return 0
