"""Split files as CoOp's ``split_zhou_*.json``, and the supports that samplers draw from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from adaptkit.features.samplers import sample
from adaptkit.io.files import atomic_write, digest
from adaptkit.io.jsons import read_json
from adaptkit.io.pictures import own

PARTS = ("train", "val", "test")

Item = tuple[str, int, str]  # path relative to the folder of images, label, class name


def support_paths(split: Path | str, shots: int, seed: int, sampler: str = "coop", val: bool = False) -> list[str]:
    """Paths of a few-shot support, in the order sampled.

    Args:
        split: a file as CoOp's ``split_zhou_*.json``.
        shots: images of each class.
        seed: of the sampler.
        sampler: a name in `adaptkit.features.samplers.SAMPLERS`.
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
        sampler: a name in `adaptkit.features.samplers.SAMPLERS`.
        dataset: what to call it; default the split file's name.

    Returns:
        Sha256 of the training paths joined by newlines, as in the file.
    """
    train, val = _sampled(split, shots, seed, sampler)
    sums = {"train": path_digest(train), "val": path_digest(val or [])}
    head = {"dataset": dataset or Path(split).stem, "sampler": sampler, "shots": shots, "seed": seed, "sha256": sums}
    atomic_write(out, json.dumps({**head, "train": train, "val": val or []}, indent=1).encode() + b"\n")
    return sums["train"]


def path_digest(paths: list[str]) -> str:
    """Sha256 of paths joined by newlines, none at the end."""
    return digest("\n".join(paths).encode())


def read_split(path: Path | str, must: Sequence[str] = ("train",)) -> dict[str, list[Item]]:
    """The parts of a file as CoOp's ``split_zhou_*.json``; a part that is absent is empty, unless it `must` be there.

    Raises:
        ValueError: in one line, for a file that cannot be read, has another shape, or leads out of the images' folder.
    """
    what = "lists train, val and test of [path, label, class name]"
    try:
        raw: Any = read_json(Path(path))
    except (OSError, ValueError) as error:
        got = " ".join(str(error).split())
        raise ValueError(f"{path} must be a readable JSON file with {what}; got {got}") from None
    known = isinstance(raw, dict) and any(map(raw.get, PARTS)) and all(map(raw.get, must))
    if not known or not all(isinstance(raw.get(p, []), list) for p in PARTS):
        got = f"keys {', '.join(map(repr, raw))}"[:200] if isinstance(raw, dict) else type(raw).__name__
        raise ValueError(f"{path} must hold {what}; got {got}")
    for part in PARTS:
        for n, item in enumerate(raw.get(part, [])):
            where = f"{path}: item {n} of {part}"
            if not (isinstance(item, list) and [type(v) for v in item] == [str, int, str] and item[1] >= 0):
                raise ValueError(f"{where} must be [path, label, class name]; got {repr(item)[:200]}")
            inside(item[0], where)
    return {part: [(path, label, name) for path, label, name in raw.get(part, [])] for part in PARTS}


def class_names(parts: Mapping[str, Sequence[Item]], path: Path | str) -> list[str]:
    """The names of the classes of a split file, by label.

    Raises:
        ValueError: when labels are not 0 and on, or one has two names.
    """
    names: dict[int, str] = {}
    for _, label, name in chain.from_iterable(parts.values()):
        if names.setdefault(label, name) != name:
            raise ValueError(f"{path} must have one name for each label; got {names[label]!r} and {name!r} for {label}")
    if absent := sorted({*range(max(names, default=0) + 1)} - {*names}):
        raise ValueError(
            f"{path} must have labels from 0 on, none left out; got {len(names)} labels up to {max(names)}, without "
            f"{absent[0]}"
        )
    return [names[label] for label in sorted(names)]


def find_root(path: Path, places: Sequence[str]) -> Path:
    """The folder that a split file's paths start from: its own, or one in it, whichever has the most of the first few.

    Args:
        path: the split file.
        places: that it names, relative to the folder.
    """
    inside = sorted(folder for folder in path.parent.iterdir() if folder.is_dir() and own(folder.name))
    images = [folder for folder in inside if folder.name.lower() == "images"]
    return max([path.parent, *images, *inside], key=lambda root: sum((root / p).is_file() for p in places[:100]))


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
