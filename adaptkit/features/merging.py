"""What the one writer tidies after an append: small shards, small files of places, lines of the log that say no more.

One step at a time, none of which writes more than a few times `CAP`. Each is atomic: a merged shard counts once its
line in the log is complete, which tells, too, what it replaces; only then are those removed. Killed before that it
leaves an unlogged file, killed after it some that do not count: `gc` removes them.
"""

import warnings
from collections.abc import Iterable

import numpy as np

from adaptkit.features.contents import Contents
from adaptkit.features.entries import CAP, MERGED, DamagedShardWarning, ShardLine, due
from adaptkit.features.places import merged
from adaptkit.features.shards import sorted_pieces
from adaptkit.io.files import atomic_write
from adaptkit.io.logs import lines

DEAD = 64  # lines of the log that may say no more, beyond as many as do


def tidy(contents: Contents) -> bool:
    """Do the next step, with the table's lock; whether there was any."""
    contents.refresh()
    ledger = contents.ledger
    plain = (name for name, entry in ledger.young.items() if entry["bytes"] >= CAP // 2)  # from before there were sums
    if group := [name] if (name := next(plain, "")) else due(((n, e["bytes"]) for n, e in ledger.young.items()), CAP):
        entries, odd = merge(contents, group)
        for name in entries[-1][MERGED] if entries else ():
            if name not in contents.ledger.live:
                (contents.folder / name).unlink(missing_ok=True)
        if odd:
            said = f"{', '.join(odd)}: rows that are not what was written are left out; they count as missing"
            warnings.warn(said, DamagedShardWarning, stacklevel=4)
    elif not merge_places(contents):
        if len(contents.log.records) - len(ledger.live) <= DEAD + len(ledger.live):
            return False
        atomic_write(contents.log.path, lines(short(ledger.live.values())))
    return True


def merge(contents: Contents, names: Iterable[str]) -> tuple[list[ShardLine], list[str]]:
    """Write some shards as one, or a few where they are large; what the log says, and which had rows that are unsound.

    Those that were replaced are left where they are.
    """
    found, odd = list[tuple[ShardLine, tuple[np.ndarray, ...]]](), list[str]()
    for name in names:
        entry = contents.ledger.live[name]
        held = contents.shard(entry).contents()
        if held is None or len(held[0]) < entry["rows"]:
            odd.append(str(contents.folder / name))
        if held is None or (found and entry["shape"] != found[0][0]["shape"]):
            contents.ledger.young.pop(name, None)  # as it is: `gc` removes it
            continue
        found.append((entry, held))
    entries = list[ShardLine]()
    if found:
        parts = (np.concatenate(part) for part in zip(*(held for _, held in found), strict=True))
        for entry, data in sorted_pieces(contents.table, *parts):
            atomic_write(contents.folder / entry["shard"], data)
            entries.append({**entry, MERGED: [], "seconds": 0.0})
        took = float(sum(entry["seconds"] for entry, _ in found))  # the last line decides: all of it, or nothing
        entries[-1] |= {MERGED: [entry["shard"] for entry, _ in found], "seconds": took}
        contents.log.append(*entries)
        contents.refresh()
    return entries, odd


def merge_places(contents: Contents) -> bool:
    """Write what is known of where rows of large shards are to one file in the place of several; whether it was due."""
    runs = {str(i): run for i, run in enumerate(contents.runs) if not contents.ledger.young.keys() & set(run.told)}
    group = [runs[key] for key in due(((key, run.size) for key, run in runs.items()), 2 * CAP)]
    if not group:
        return False
    name, data = merged(group).written()
    atomic_write(contents.index / name, data)
    contents.scan()
    for run in group:
        if run.path:
            run.path.unlink(missing_ok=True)
    return True


def short(entries: Iterable[ShardLine]) -> list[ShardLine]:
    """Lines that tell no more what was replaced."""
    return [{**entry, MERGED: []} if MERGED in entry else entry for entry in entries]
