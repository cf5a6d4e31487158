"""``adaptkit plan``: what a run would compute."""

from __future__ import annotations

from argparse import Namespace

from adaptkit.commands.asked import home, out, recipes


def command(options: Namespace) -> int:
    """Say what running would compute."""
    from adaptkit.plan import plan as describe

    for asked in recipes(options):
        print(describe(asked, home=home(options), out=out(options, asked)))
    return 0
