"""``adaptkit show``: a card."""

from __future__ import annotations

from argparse import Namespace

from adaptkit.commands.requested import load_files


def command(options: Namespace) -> int:
    """Print a card."""
    from adaptkit.report.cards import card

    load_files(options)
    print(card(options.name))
    return 0
