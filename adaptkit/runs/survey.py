"""What ``adaptkit data`` does: say what is there of a dataset, print the supports of a split file, write them down."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adaptkit.io.downloads import file_digest
from adaptkit.io.errors import must_be
from adaptkit.runs import plugins, recipe, shelf
from adaptkit.runs.named_plugins import use_named
from adaptkit.runs.setting import named_sets


def check_dataset(name: str, *, trust: bool = False) -> tuple[list[str], bool]:
    """Whether a run can rely on a dataset.

    Args:
        name: of a dataset, with a place after a colon where it takes one, or of a recipe, or a recipe's file.
        trust: run the plugin files that the recipe names.

    Returns:
        Lines to print, all but the first with ``present``, ``optional``, ``missing``, ``different`` or ``to do`` in
        front; and whether nothing is missing or different.

    Raises:
        ValueError: when neither a dataset nor a recipe has this name.
    """
    name, domains = _dataset(name, trust)
    scheme, _, place = name.partition(":")
    load = plugins.pick("datasets", scheme)
    lines, found = [f"dataset {name}"], Counter[str]()
    for status, text in _survey(load, place) if hasattr(load, "root") else _loaded(load, place):
        found[status] += 1
        lines.append(f"{status:<9}  {text}")
    have = load(place).domains if domains and not found["missing"] else domains
    others = [d for d in domains if d not in have and d.partition(":")[0] in plugins.table("datasets")]
    for domain in domains:
        if domain not in (*have, *others):
            found["missing"] += 1
            lines.append(f"{'missing':<9}  domain {domain!r} of the recipe; {name} has {', '.join(have) or 'none'}")
    wrong = found["missing"] + found["different"] > 0
    if wrong and (entry := getattr(load, "entry", {})) and "where" in entry:
        lines.append(f"to do      {entry['title']}: {entry['where']}; licence: {entry['licence']}")
        if getattr(load, "fetch", None):
            lines.append(f"to do      adaptkit data get {scheme} --root FOLDER gets it, or says what is done by hand")
        if entry["hub"]:
            lines.append(
                f"to do      or hf-dataset:{entry['hub']}, with splits of its own: other images, other numbers"
            )
    for more, good in map(check_dataset, others):
        lines, wrong = [*lines, *more], wrong or not good
    return lines, not wrong


def _dataset(name: str, trust: bool) -> tuple[str, list[str]]:
    """The dataset that is meant, by its name or by that of a recipe, and the recipe's further test sets."""
    if name.partition(":")[0] in plugins.table("datasets"):
        return name, []
    known = [*plugins.table("datasets"), *shelf.names()]
    if Path(name).suffix not in (".yaml", ".yml") and name not in known:
        raise ValueError(must_be("a dataset or a recipe", known, name))
    asked = recipe.read_recipe(name)
    use_named(asked, trust=trust)
    return asked.dataset, [
        d for sets in (asked.domains, asked.near, asked.far) for d in named_sets(sets).values() if d != "new"
    ]


def _survey(field: Any, place: str) -> Iterator[tuple[str, str]]:  # noqa: ANN401 (an entry of field.json, readable)
    """What is there of a dataset of the field."""
    entry = field.entry
    try:
        root = field.root(place)
        yield "present", f"folder {root}"
        for name in entry["files"]:
            path, want = field.file(root, name, must=False), entry["digests"].get(name)
            if path is None:
                yield "missing", f"{root / name}"
            elif want and (got := file_digest(path, want.partition(":")[0])) != want:
                yield "different", f"{path} must have {want}; got {got}; runs on it are another protocol"
            else:
                yield "present", f"{path}" + ("" if want else ", of which no digest is known")
        names, _, parts = field.read(root)
    except ValueError as error:
        yield "missing", str(error).partition("; see adaptkit data check")[0]
        return
    counts = [("classes", len(names), entry["classes"])]
    for what, have, want in counts + [(f"{p} images", len(rows), entry["counts"][p]) for p, rows in parts.items()]:
        if want not in (None, have):
            yield "different", f"{what} must be {want:,}; got {have:,}"
        elif have:
            yield "present", f"{have:,} {what}" + ("" if want else ", where no number is known")
    for part, rows in parts.items():
        if absent := [path for path, _ in rows if not os.path.exists(path)]:
            yield "missing", f"{len(absent):,} of {len(rows):,} {part} images, the first {absent[0]}"
    for domain in (plugins.pick("datasets", name) for name in entry.get("domains", ())):
        there = domain.find([root.parent / folder for folder in domain.entry["folders"]], files=False)
        yield ("present" if there else "optional"), f"domain {domain.name}: {there or 'not there'}"


def _loaded(load: Any, place: str) -> list[tuple[str, str]]:  # noqa: ANN401 (a dataset's loader)
    """What can be said of a dataset that has no survey of its own: that it loads, and its counts."""
    try:
        splits = load(place)
    except ValueError as error:
        return [("missing", " ".join(str(error).split()))]
    parts = {"train": splits.train, "val": splits.val, "test": splits.test, "pool": splits.pool, **splits.domains}
    counts = [("present", f"{n}: {len(part):,} images") for n, part in parts.items() if part is not None]
    notes = [("optional" if splits.left_out else "present", note) for note in splits.said()]
    return [("present", f"{len(splits.classnames):,} classes"), *counts, *notes]
