"""``adaptkit plan``: what a run would compute."""

from __future__ import annotations

from argparse import Namespace

from adaptkit.commands.requested import home_folder, out, recipes


def command(options: Namespace) -> int:
    """Say what running would compute."""
    from adaptkit.runs.plan import plan as describe

    for requested in recipes(options):
        print(describe(requested, home=home_folder(options), out=out(options, requested)))
    return 0
