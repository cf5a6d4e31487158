"""``adaptkit data``: get datasets, what is there of one, a look at it, and what a sampler draws from a split file."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from adaptkit.commands.requested import home_folder, load_files
from adaptkit.io.errors import must_be
from adaptkit.io.jsons import strict_json
from adaptkit.io.ranges import Seed, Shots, hold
from adaptkit.io.shots import ALL_SHOTS
from adaptkit.io.text import columns


def command(options: Namespace) -> int:
    """Get datasets, say what is there of one, or what a sampler draws from a split file."""
    from adaptkit.features import split_files
    from adaptkit.runs.survey import check_dataset

    if options.action == "get":
        return get(options)
    if options.action == "check":
        load_files(options)
        lines, good = check_dataset(options.name, trust=options.trust)
        print(strict_json(checked(lines, good)) if options.json else "\n".join(lines))
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
    from adaptkit.io.files import atomic_write, ensure_file
    from adaptkit.io.safe import csv_text
    from adaptkit.report.looking.found import LOOK_FIELDS
    from adaptkit.report.looking.look import looked
    from adaptkit.report.looking.page import looking_page

    if options.out and options.out.suffix not in (".html", ".csv"):
        raise ValueError(f"--out must end in .html or .csv; got {str(options.out)!r}")
    if options.out:
        ensure_file(options.out)
    backbone = "" if options.backbone == "none" else options.backbone
    home = home_folder(options)
    splits, found = looked(options.name, backbone, options.with_test, home, progress=not options.quiet)
    print("\n".join(found.lines()))
    if options.out:
        csv = csv_text([LOOK_FIELDS, *([row[name] for name in LOOK_FIELDS] for row in found.rows())])
        atomic_write(options.out, (looking_page(found, splits) if options.out.suffix == ".html" else csv).encode())


def get(options: Namespace) -> int:
    """Get datasets and check them, or list them; 1 where something is left to do."""
    from adaptkit.runs.fetching import get_dataset
    from adaptkit.runs.offers import offers, place_of
    from adaptkit.runs.survey import check_dataset

    load_files(options)
    if options.list or options.json or not options.names:
        return show_offers(options)
    root = options.root or Path(os.environ.get("ADAPTKIT_DATA", ""))
    if root == Path():
        raise ValueError("--root must be given, or ADAPTKIT_DATA set, to say where datasets lie; got neither")
    known = offers()
    names = [name for name, offer in known.items() if not offer.hand] if options.names == ["all"] else options.names
    if odd := [name for name in names if name not in known]:
        raise ValueError(must_be("a dataset to get", [*known, "all"], odd[0]))
    code = 0
    for name in dict.fromkeys(names):
        whole = get_dataset(name, root, keep=options.keep, tell=partial(print, flush=True))
        if whole:
            lines, good = check_dataset(f"{name}:{place_of(known[name], root)}")
            print("\n".join(lines))
        code = code if whole and good else 1
    return code


def show_offers(options: Namespace) -> int:
    """Every dataset that can be got, as a table or as JSON."""
    from adaptkit.runs.offers import offers

    found = offers().values()
    if options.json:
        print(strict_json([{**asdict(offer), "bytes": offer.bytes, "by_hand": offer.hand} for offer in found]))
        return 0
    head = ["dataset", "to get", "licence", "how"]
    rows = [[o.name, o.size, o.licence, "partly by hand" if o.hand else "no login"] for o in found]
    print(columns([head, *rows]))
    print("\nsizes as publishers and libraries state them, > where one is not stated; --json says who states what")
    print("adaptkit data get NAME --root FOLDER gets one, and says what a hand must do")
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
