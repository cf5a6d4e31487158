"""``adaptkit extract``: the features that a run will read."""

from __future__ import annotations

from argparse import Namespace

from adaptkit.commands.as_json import json_alone
from adaptkit.commands.engine import engine
from adaptkit.commands.requested import home_folder, recipes


def command(options: Namespace) -> int:
    """Compute and store what the cells of recipes will read; 1 where a plugin could not be loaded."""
    from adaptkit.runs import job, plugins

    found = list[dict[str, object]]()
    with json_alone(options.json) as answer, engine(options) as workers:
        for requested in recipes(options):
            home, shard = home_folder(options), options.shard or (1, 1)
            told = job.extract_all(requested, home=home, progress=not options.quiet, shard=shard, engine=workers)
            print(f"{requested.name}{f', shard {shard[0]}/{shard[1]}' * (shard[1] > 1)}: {told}")
            found.append({"recipe": requested.name, "shard": list(shard), "told": told})
        if options.json:
            answer(found)
    return int(bool(plugins.broken))
