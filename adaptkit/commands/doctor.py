"""``adaptkit doctor``: whether adaptkit is well on this machine, and what to do where it is not."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from adaptkit.commands.requested import home_folder, load_files
from adaptkit.io.jsons import strict_json
from adaptkit.io.safe import line


def command(options: Namespace) -> int:
    """Print what was found; 1 where something is wrong."""
    from adaptkit.report.health import health

    load_files(options)
    found = []
    for finding in health(home_folder(options), deep=options.deep):
        found.append(finding)
        if not options.json:
            todo = f"; to do: {finding.todo}" if finding.todo else ""
            print(f"{finding.status:<5}  {finding.part:<9}  {line(finding.what + todo)}", flush=True)
    wrong = sum(finding.status == "wrong" for finding in found)
    if options.json:
        print(strict_json([asdict(finding) for finding in found]))
    else:
        print(f"\n{wrong or 'nothing'} of {len(found)} is wrong")
    return int(wrong > 0)
