"""``adaptkit data``: what is there of a dataset, and what a sampler draws from a split file."""

from __future__ import annotations

from argparse import Namespace

from adaptkit.commands.requested import load_files
from adaptkit.io.ranges import Seed, Shots, hold


def command(options: Namespace) -> int:
    """Say what is there of a dataset, or what a sampler draws from a split file."""
    from adaptkit.features import split_files
    from adaptkit.runs.survey import check_dataset

    if options.action == "check":
        load_files(options)
        lines, good = check_dataset(options.name, trust=options.trust)
        print("\n".join(lines))
        return 0 if good else 1
    hold(options.shots, Shots, "--shots")
    hold(options.seed, Seed, "--seed")
    draw = (options.shots, options.seed, options.sampler)
    if options.action == "supports":
        print("\n".join(split_files.support_paths(options.split, *draw, val=options.val)))
    else:
        print(f"sha256 of the training images: {split_files.export(options.split, options.out, *draw)}")
    return 0
