"""What ``adaptkit data`` does: say what is there of a dataset, print the supports of a split file, write them down."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adaptkit import plugins, recipe
from adaptkit.files import atomic_write, digest
from adaptkit.samplers import sample

PARTS = ("train", "val", "test")
Item = tuple[str, int, str]  # path relative to the folder of images, label, class name


def check(name: str) -> tuple[list[str], bool]:
    """Whether a run can rely on a dataset.

    Args:
        name: of a dataset, with a place after a colon where it takes one, or of a recipe, or a recipe's file.

    Returns:
        Lines to print, all but the first with ``present``, ``optional``, ``missing``, ``different`` or ``to do`` in
        front; and whether nothing is missing or different.

    Raises:
        ValueError: when neither a dataset nor a recipe has this name.
    """
    domains: list[str] = []
    if name.partition(":")[0] not in plugins.table("datasets"):
        known = [*plugins.table("datasets"), *recipe.names()]
        if Path(name).suffix not in (".yaml", ".yml") and name not in known:
            raise ValueError(plugins.must_be("a dataset or a recipe", known, name))
        asked = recipe.read(name)
        for file in asked.plugins:
            plugins.add_file(file if file.is_absolute() else asked.folder / file)
        name, domains = asked.dataset, [d for d in (*asked.domains, *asked.near, *asked.far) if d != "new"]
    scheme, _, place = name.partition(":")
    load = plugins.pick("datasets", scheme)
    lines, found = [f"dataset {name}"], Counter[str]()
    for status, text in _survey(load, place) if hasattr(load, "entry") else _loaded(load, place):
        found[status] += 1
        lines.append(f"{status:<9}  {text}")
    have = load(place).domains if domains and not found["missing"] else domains
    others = [d for d in domains if d not in have and d.partition(":")[0] in plugins.table("datasets")]
    for domain in domains:
        if domain not in (*have, *others):
            found["missing"] += 1
            lines.append(f"{'missing':<9}  domain {domain!r} of the recipe; {name} has {', '.join(have) or 'none'}")
    wrong = found["missing"] + found["different"] > 0
    if wrong and (entry := getattr(load, "entry", None)):
        lines.append(f"to do      {entry['title']}: {entry['where']}; licence: {entry['licence']}")
        if entry["hub"]:
            lines.append(
                f"to do      or hf-dataset:{entry['hub']}, with splits of its own: other images, other numbers"
            )
    for more, good in map(check, others):
        lines, wrong = [*lines, *more], wrong or not good
    return lines, not wrong


def supports(split: Path | str, shots: int, seed: int, sampler: str = "coop", val: bool = False) -> list[str]:
    """Paths of a few-shot support, in the order sampled.

    Args:
        split: a file as CoOp's ``split_zhou_*.json``.
        shots: images of each class.
        seed: of the sampler.
        sampler: a name in `adaptkit.samplers.SAMPLERS`.
        val: the validation images instead of the training images.

    Raises:
        ValueError: for a file of another shape, a wrong argument, or no validation images where they are asked for.
    """
    train, chosen = _sampled(split, shots, seed, sampler)
    if val and chosen is None:
        raise ValueError(f"{split} must have images in val for sampler {sampler!r} to draw from; got none")
    return (chosen or []) if val else train


def export(split: Path | str, out: Path, shots: int, seed: int, sampler: str = "coop", dataset: str = "") -> str:
    """Write a support as plain JSON, for support ``indices`` and for other code bases.

    Args:
        split: a file as CoOp's ``split_zhou_*.json``.
        out: the file to write; its folder is made.
        shots: images of each class.
        seed: of the sampler.
        sampler: a name in `adaptkit.samplers.SAMPLERS`.
        dataset: what to call it; default the split file's name.

    Returns:
        Sha256 of the training paths joined by newlines, as in the file.
    """
    train, val = _sampled(split, shots, seed, sampler)
    sums = {"train": path_digest(train), "val": path_digest(val or [])}
    head = {"dataset": dataset or Path(split).stem, "sampler": sampler, "shots": shots, "seed": seed, "sha256": sums}
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, json.dumps({**head, "train": train, "val": val or []}, indent=1).encode() + b"\n")
    return sums["train"]


def path_digest(paths: list[str]) -> str:
    """Sha256 of paths joined by newlines, none at the end."""
    return digest("\n".join(paths).encode())


def read_split(path: Path | str) -> dict[str, list[Item]]:
    """The parts of a file as CoOp's ``split_zhou_*.json``; a part that is absent is empty.

    Raises:
        ValueError: in one line, for a file that cannot be read, has another shape, or leads out of the images' folder.
    """
    what = "lists train, val and test of [path, label, class name]"
    try:
        raw: Any = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        got = " ".join(str(error).split())
        raise ValueError(f"{path} must be a readable JSON file with {what}; got {got}") from None
    if not isinstance(raw, dict) or not raw.get("train") or not all(isinstance(raw.get(p, []), list) for p in PARTS):
        got = f"keys {', '.join(map(repr, raw))}"[:200] if isinstance(raw, dict) else type(raw).__name__
        raise ValueError(f"{path} must hold {what}; got {got}")
    for part in PARTS:
        for n, item in enumerate(raw.get(part, [])):
            where = f"{path}: item {n} of {part}"
            if not (isinstance(item, list) and [type(v) for v in item] == [str, int, str] and item[1] >= 0):
                raise ValueError(f"{where} must be [path, label, class name]; got {str(item)[:200]}")
            inside(item[0], where)
    return {part: [(path, label, name) for path, label, name in raw.get(part, [])] for part in PARTS}


def inside(path: str, where: str) -> str:
    """A relative path, or a ``ValueError`` when it leads out of the folder it starts from."""
    parts = path.replace("\\", "/").split("/")
    if not path or parts[0] == "" or ".." in parts or parts[0][1:2] == ":" or set(path) & {*"\0\n\r"}:
        raise ValueError(f"{where} must have a path inside the folder of images; got {path!r}")
    return path


def _sampled(split: Path | str, shots: int, seed: int, sampler: str) -> tuple[list[str], list[str] | None]:
    """Training and validation paths."""
    parts = read_split(split)
    train, val = parts["train"], parts["val"] or None
    val_labels = None if val is None else [label for _, label, _ in val]
    rows, val_rows = sample(sampler, [label for _, label, _ in train], val_labels, shots, seed)
    chosen = None if val_rows is None else [(val or train)[row][0] for row in val_rows]  # without val: rows of train
    return [train[row][0] for row in rows], chosen


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
            elif want and (got := _digest(path, want.partition(":")[0])) != want:
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


def _digest(path: Path, kind: str) -> str:
    """Digest of a file, named by its kind: ``sha256``, or ``git`` as `git hash-object` prints it."""
    data = path.read_bytes()
    if kind == "git":
        data = b"blob %d\0" % len(data) + data
    return f"{kind}:{hashlib.new('sha1' if kind == 'git' else kind, data).hexdigest()}"


def _loaded(load: Any, place: str) -> list[tuple[str, str]]:  # noqa: ANN401 (a dataset's loader)
    """What can be said of a dataset that has no survey of its own: that it loads, and its counts."""
    try:
        splits = load(place)
    except ValueError as error:
        return [("missing", " ".join(str(error).split()))]
    parts = {"train": splits.train, "val": splits.val, "test": splits.test, **splits.domains}
    counts = [("present", f"{n}: {len(part):,} images") for n, part in parts.items() if part is not None]
    return [("present", f"{len(splits.classnames):,} classes"), *counts]
