"""``adaptkit cache``: look after the features on disk."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from adaptkit.commands.requested import home_folder
from adaptkit.io.text import columns

FIELDS_SHOWN = ("projected", "block", "blocks", "tokens", "attention", "count", "rows", "columns", "side")  # of a need


def command(options: Namespace) -> int:
    """Look after the feature cache."""
    from adaptkit.features.store import Store

    store = Store(home_folder(options) / "features")
    if options.action == "ls":
        head = ["table", "need", "backbone", "dtype", "rows", "MB"]
        rows = [
            [
                t.folder.name[:12],
                _need(t.spec),
                str(t.spec.get("fingerprint", ""))[:12],
                str(t.spec.get("dtype", "")),
                f"{t.rows:,}",
                f"{t.bytes / 1e6:.1f}",
            ]
            for t in store.tables()
        ]
        print(columns([head, *rows]))
        print(f"in {store.root}")
        return 0
    if options.action == "gc":
        freed = store.gc(older_than_days=options.older_than)
        print(f"freed {freed / 1e6:.1f} MB in {store.root}")
        return 0
    for healed in store.repair() if options.repair else ():
        print(f"written again: {healed}")
    problems = store.verify()
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems in {len(store.tables())} tables of {store.root}")
    return 1 if problems else 0


def _need(spec: Mapping[str, object]) -> str:
    words = [str(spec.get("need", "?")).rpartition(".")[2]] + ["views", str(spec.get("augment"))] * bool(
        spec.get("random")
    )
    return " ".join(words + [f"{k}={spec[k]}" for k in FIELDS_SHOWN if k in spec])
