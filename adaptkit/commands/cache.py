"""``adaptkit cache``: look after the features on disk."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adaptkit.commands.requested import home_folder
from adaptkit.io.jsons import strict_json
from adaptkit.io.text import columns

if TYPE_CHECKING:
    from adaptkit.features.store import Store, StoredTable

FIELDS_SHOWN = ("projected", "block", "blocks", "tokens", "attention", "count", "rows", "columns", "side")  # of a need


def command(options: Namespace) -> int:
    """Look after the feature cache."""
    from adaptkit.features.store import Store

    store = Store(home_folder(options) / "features")
    text, found = {"ls": tables_listed, "gc": collected, "verify": verified}[options.action](store, options)
    print(strict_json({"folder": store.root, **found}) if options.json else text)
    return int(bool(found.get("problems")))


def tables_listed(store: Store, options: Namespace) -> tuple[str, dict[str, Any]]:
    """Every table, in columns; and for JSON."""
    found = [table_facts(table) for table in store.tables()]
    head = ["table", "need", "backbone", "dtype", "rows", "MB"]
    rows = [
        [f["table"][:12], f["need"], f["fingerprint"][:12], f["dtype"], f"{f['rows']:,}", f"{f['bytes'] / 1e6:.1f}"]
        for f in found
    ]
    return f"{columns([head, *rows])}\nin {store.root}", {"tables": found}


def collected(store: Store, options: Namespace) -> tuple[str, dict[str, Any]]:
    """Remove leftovers; how many bytes they had."""
    if options.older_than is not None and not options.older_than >= 0:
        raise ValueError(f"--older-than must be a number of days, 0 or more; got {options.older_than}")
    freed = store.gc(older_than_days=options.older_than)
    return f"freed {freed / 1e6:.1f} MB in {store.root}", {"freed": freed}


def verified(store: Store, options: Namespace) -> tuple[str, dict[str, Any]]:
    """Hash everything; what is wrong, and what was written again first."""
    repaired = [*store.repair()] if options.repair else []
    problems, count = store.verify(), len(store.tables())
    lines = [*(f"written again: {healed}" for healed in repaired), *problems]
    lines.append(f"{len(problems)} problems in {count} tables of {store.root}")
    return "\n".join(lines), {"tables": count, "repaired": repaired, "problems": problems}


def table_facts(table: StoredTable) -> dict[str, Any]:
    """What is known of a table; bytes are those of its rows."""
    about = {"table": table.folder.name, "need": _need(table.spec)}
    own = {key: str(table.spec.get(key, "")) for key in ("fingerprint", "dtype")}
    return {**about, **own, "rows": table.rows, "bytes": table.bytes}


def _need(spec: Mapping[str, object]) -> str:
    words = [str(spec.get("need", "?")).rpartition(".")[2]] + ["views", str(spec.get("augment"))] * bool(
        spec.get("random")
    )
    return " ".join(words + [f"{k}={spec[k]}" for k in FIELDS_SHOWN if k in spec])
