"""``adaptkit data``: what is there of a dataset, and what a sampler draws from a split file."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from adaptkit.commands.requested import load_files
from adaptkit.io.jsons import strict_json
from adaptkit.io.ranges import Seed, Shots, hold
from adaptkit.io.shots import ALL_SHOTS


def command(options: Namespace) -> int:
    """Say what is there of a dataset, or what a sampler draws from a split file."""
    from adaptkit.features import split_files
    from adaptkit.runs.survey import check_dataset

    if options.action == "check":
        load_files(options)
        lines, good = check_dataset(options.name, trust=options.trust)
        print(strict_json(checked(lines, good)) if options.json else "\n".join(lines))
        return 0 if good else 1
    shots = ALL_SHOTS if options.shots == "all" else int(options.shots)
    if shots != ALL_SHOTS:
        hold(shots, Shots, "--shots")
    hold(options.seed, Seed, "--seed")
    draw = (shots, options.seed, options.sampler)
    if options.action == "supports":
        print("\n".join(split_files.support_paths(options.split, *draw, val=options.val)))
    else:
        print(f"sha256 of the training images: {split_files.export(options.split, options.out, *draw)}")
    return 0


def checked(lines: Sequence[str], good: bool) -> dict[str, Any]:
    """What `check_dataset` says, for JSON: by dataset, each finding's status and text."""
    datasets = list[dict[str, Any]]()
    for line in lines:
        if line.startswith("dataset "):
            datasets.append({"dataset": line.removeprefix("dataset "), "findings": []})
        else:
            datasets[-1]["findings"].append({"status": line[:9].strip(), "text": line[9:].strip()})
    return {"good": good, "datasets": datasets}
