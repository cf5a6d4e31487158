"""Labelled images that somebody else has drawn, from the file that lists them.

``path`` names the file; ``{shots}`` and ``{seed}`` in it are replaced. Three formats are read: cross-modal adaptation's
JSON (``indices/dtd/shot_{shots}-seed_{seed}.json``), 2SFS' JSON lines (``shot_{shots}-seed_{seed}_train.jsonl``, beside
which ``..._val.jsonl`` is read, too), and what ``adaptkit data`` exports. No pickles: they run code.

An image of the file is the one of the dataset whose path ends most alike, in two parts at least where the file gives
two. Labels are the dataset's; those of the file must stand one to one for them. Validation images are looked up among
the validation images, or among the training images where the dataset has no others.

Source: Lin et al., Multimodality Helps Unimodality, arXiv:2301.06267; Farina et al., Rethinking Few-Shot Adaptation of
Vision-Language Models in Two Stages, arXiv:2503.11609 (the formats).
Deviations: none known.
"""

import os
from collections import defaultdict

import torch

from adaptkit import hookimpl
from adaptkit.features.split_files import path_digest
from adaptkit.io.jsons import parse_json
from adaptkit.io.paths import expanded, read_file

KEYS = (("impath", "label"), ("_impath", "_label"))  # of cross-modal adaptation, of 2SFS


def indices(task, train, val, *, shots, seed, path: str):
    if not isinstance(path, str) or not path:
        raise ValueError(f"path must name a file of indices; got {path!r}")
    file = expanded(path.replace("{shots}", str(shots)).replace("{seed}", str(seed)))
    items, val_items = read(file, shots, seed)
    return match(train, items, file), match(train if val is None else val, val_items, file) if val_items else None


def read(file, shots, seed):
    """``(path, label)`` for each training image, and for each validation image; a plain export has no labels."""
    if file.suffix == ".jsonl":
        beside = file.with_name(file.name.replace("_train", "_val"))
        files = [file, beside] if beside != file and beside.is_file() else [file]
        parts = [[load(line, at) for line in text(at).splitlines() if line.strip()] for at in files]
    else:
        raw = load(text(file), file)
        parts = [raw.get("train"), raw.get("val", [])] if isinstance(raw, dict) else [None]
        parts = [part.get("data") if isinstance(part, dict) else part for part in parts]
    if not parts[0] or not all(isinstance(part, list) for part in parts):
        raise ValueError(f"{file} must list images in train, and in val if there are any; got none, or something else")
    if file.suffix != ".jsonl":
        unchanged(raw, file, shots, seed)
    items = [[pair(row, file) for row in part] for part in parts]
    return items if len(items) == 2 else (*items, [])


def text(file):
    try:
        return read_file(file).decode()
    except OSError as error:
        raise ValueError(f"indices must be a file that can be read; got {str(file)!r}: {error.strerror}") from None


def load(part, file):
    try:
        return parse_json(part)
    except ValueError as error:
        raise ValueError(f"{file} must be JSON, or lines of JSON in a .jsonl file: {error}") from None


def pair(row, file):
    if isinstance(row, str):
        return row, None
    for path, label in KEYS:
        if isinstance(row, dict) and isinstance(row.get(path), str) and isinstance(row.get(label), int):
            return row[path], row[label]
    raise ValueError(f"{file} must name each image by a path, or by {KEYS}; got {str(row)[:200]}")


def unchanged(raw, file, shots, seed):
    """Raise when an export is of other shots, another seed, or was changed after it was written."""
    for what, have in (("shots", shots), ("seed", seed)):
        if raw.get(what, have) != have:
            raise ValueError(f"{what} must be {raw[what]}, as in {file}; got {have}")
    sums = raw.get("sha256", {})
    for part in sums if isinstance(sums, dict) else ():
        if path_digest(list(map(str, raw.get(part, [])))) != sums[part]:
            raise ValueError(f"{part} of {file} must have sha256 {sums[part]}; got another: it was changed")


def match(images, items, file):
    """The images that a file lists, in its order."""
    source = getattr(images.rows, "source", None)
    paths = getattr(source, "paths", None)
    if paths is None:
        raise ValueError(f"support 'indices' must have a dataset of files; got {getattr(source, 'name', 'arrays')}")
    names, rows, own = defaultdict(list), [], images.labels.tolist()
    for row, i in enumerate(images.index.tolist()):
        names[os.path.basename(paths[i])].append((row, str(paths[i])))
    for path, _ in items:
        parts = trail(path)
        alike = [(common(parts, trail(there)), row) for row, there in names.get(parts[-1], ())]
        longest = max(alike, default=(0, 0))[0]
        best = [row for length, row in alike if length == longest >= min(2, len(parts))]
        if len(best) != 1:
            raise ValueError(f"{path!r} in {file} must be one image of {source.name}; got {len(best)} of that name")
        rows += best
    stands = {(label, own[row]) for (_, label), row in zip(items, rows, strict=True) if label is not None}
    if any(len({pair[side] for pair in stands}) != len(stands) for side in (0, 1)):
        raise ValueError(f"labels in {file} must stand one to one for those of {source.name}; got others")
    return images[torch.tensor(rows, dtype=torch.long)]


def trail(path):
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")] or [""]


def common(one, other):
    """How many parts two paths share at the end."""
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return length


@hookimpl
def supports():
    return {"indices": indices}
