"""``adaptkit show``: a card."""

from __future__ import annotations

from argparse import Namespace

from adaptkit.commands.requested import load_files
from adaptkit.io.jsons import strict_json


def command(options: Namespace) -> int:
    """Print a card."""
    from adaptkit.report.cards import card, facts

    load_files(options)
    print(strict_json(facts(options.name)) if options.json else card(options.name))
    return 0
