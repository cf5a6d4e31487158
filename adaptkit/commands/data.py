"""``adaptkit data``: what is there of a dataset, what a look at it shows, and what a sampler draws of a split file."""

from __future__ import annotations

from argparse import Namespace

from adaptkit.commands.requested import home_folder, load_files
from adaptkit.io.ranges import Seed, Shots, hold
from adaptkit.io.shots import ALL_SHOTS


def command(options: Namespace) -> int:
    """Say what is there of a dataset, or what a sampler draws from a split file."""
    from adaptkit.features import split_files
    from adaptkit.runs.survey import check_dataset

    if options.action == "check":
        load_files(options)
        lines, good = check_dataset(options.name, trust=options.trust)
        print("\n".join(lines))
        return 0 if good else 1
    if options.action == "look":
        load_files(options)
        look_and_tell(options)
        return 0
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


def look_and_tell(options: Namespace) -> None:
    """Look at a dataset, say what was found, and write it down where that is asked."""
    from adaptkit.io.files import atomic_write
    from adaptkit.io.safe import csv_text
    from adaptkit.report.looking.found import LOOK_FIELDS
    from adaptkit.report.looking.look import looked
    from adaptkit.report.looking.page import looking_page

    if options.out and options.out.suffix not in (".html", ".csv"):
        raise ValueError(f"--out must end in .html or .csv; got {str(options.out)!r}")
    backbone = "" if options.backbone == "none" else options.backbone
    home = home_folder(options)
    splits, found = looked(options.name, backbone, options.with_test, home, progress=not options.quiet)
    print("\n".join(found.lines()))
    if options.out:
        csv = csv_text([LOOK_FIELDS, *([row[name] for name in LOOK_FIELDS] for row in found.rows())])
        atomic_write(options.out, (looking_page(found, splits) if options.out.suffix == ".html" else csv).encode())
