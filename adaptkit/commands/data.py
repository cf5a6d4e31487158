"""``adaptkit data``: get datasets, what is there of one, and what a sampler draws from a split file."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from dataclasses import asdict
from functools import partial
from pathlib import Path

from adaptkit.commands.requested import load_files
from adaptkit.io.errors import must_be
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
        print("\n".join(lines))
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
        print(json.dumps([{**asdict(offer), "bytes": offer.bytes, "by_hand": offer.hand} for offer in found], indent=1))
        return 0
    head = ["dataset", "to get", "licence", "how"]
    rows = [[o.name, o.size, o.licence, "partly by hand" if o.hand else "no login"] for o in found]
    print(columns([head, *rows]))
    print("\nsizes as publishers and libraries state them, > where one is not stated; --json says who states what")
    print("adaptkit data get NAME --root FOLDER gets one, and says what a hand must do")
    return 0
