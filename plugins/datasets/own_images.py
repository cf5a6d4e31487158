"""Your own images, without code: a folder per class, or a csv file.

``folder:photos`` holds ``photos/<class>/*.jpg``, or ``photos/<train, val or test>/<class>/*.jpg``; ``_`` and ``-`` in
the name of a class are read as spaces. ``csv:photos.csv`` has the columns ``path`` (from the csv file's folder, and
inside it), ``label`` (a name) and perhaps ``split``. Classes are sorted by name.

Without splits, each class is split here: in the order of its files' sha256, the first half is train, the next fifth val
and the rest test, on every machine alike; equal files stay together. Without test, val is test. Val may be missing.
Deviations: orientation in EXIF is not applied, as in the papers' loaders. Of an animation, the first frame is read.
"""

import csv
from collections import defaultdict
from pathlib import Path

from adaptkit import Splits, hookimpl
from adaptkit.features.sources import PictureFiles
from adaptkit.io.digests import FileDigests
from adaptkit.io.errors import must_be
from adaptkit.io.home import home
from adaptkit.io.hub import nearest
from adaptkit.io.paths import expanded, resolved
from adaptkit.io.pictures import SUFFIXES

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
COLUMNS = ("path", "label", "split")


def folder(place):
    root = existing("folder:", place, Path.is_dir)
    parts, inside = {root: ""}, folders(root)
    if any(path.name == "train" and folders(path) for path in inside):
        for path in inside:
            if path.name not in SPLITS:
                raise ValueError(must_be(f"a folder beside {str(root / 'train')!r}", SPLITS, path.name))
        parts = {path: SPLITS[path.name] for path in inside}
    rows = []
    for part, split in parts.items():
        if not folders(part):
            raise ValueError(
                f"{str(part)!r} must hold one folder per class, or train, val and test with these; got none"
            )
        for path in folders(part):
            files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES and file.name[0] != "."]
            if not files:
                raise ValueError(f"{str(path)!r} must hold the images of a class, {', '.join(SUFFIXES)}; got none")
            rows += [(file, path.name, split) for file in files]
    return arrange(f"folder:{place}", root, rows, lambda name: name.replace("_", " ").replace("-", " "))


def csv_file(place):
    file = existing("csv:", place, Path.is_file)
    root, rows = resolved(file.parent), {}
    try:
        with open(file, newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, strict=True, skipinitialspace=True)
            for column in reader.fieldnames or ():
                if column not in COLUMNS:
                    raise ValueError(must_be(f"a column of {str(file)!r}", COLUMNS, column))
            if absent := sorted({"path", "label"} - set(reader.fieldnames or ())):
                raise ValueError(
                    f"{str(file)!r} must have columns path and label, split if you like; got no {absent[0]}"
                )
            for row in reader:
                line = f"line {reader.line_num} of {str(file)!r}"
                if None in row or not all(row.values()):
                    raise ValueError(f"{line} must have a value for each of {', '.join(reader.fieldnames)}")
                if row.get("split", "test") not in SPLITS:
                    raise ValueError(must_be(f"split in {line}", SPLITS, row["split"]))
                path = resolved(root / row["path"])
                if not path.is_relative_to(root):
                    raise ValueError(f"path in {line} must stay inside {str(root)!r}; got {row['path']!r}")
                if path in rows:
                    raise ValueError(f"path in {line} must be new; got {row['path']!r} again")
                existing(f"path in {line}", str(path), Path.is_file)
                rows[path] = row["label"], SPLITS[row["split"]] if "split" in row else ""
    except (UnicodeDecodeError, csv.Error) as cause:
        raise ValueError(f"{str(file)!r} must be a csv file in UTF-8: {cause}") from None
    if not rows:
        raise ValueError(f"{str(file)!r} must have a line per image; got none below the header")
    return arrange(f"csv:{place}", root, [(path, *row) for path, row in rows.items()], str)


def existing(what, place, good):
    """A path, or an error with the nearest one that exists."""
    path = expanded(place)
    if place and good(path):
        return path
    kind = "folder" if good is Path.is_dir else "file"
    raise ValueError(f"{what} must name a {kind} that exists; got {place!r}{nearest(path, good)}")


def folders(root):
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def arrange(name, root, rows, title):
    """Splits from rows of (path, class, split); paths lie below the root."""
    digests = FileDigests(home() / "digests")
    if {split for _, _, split in rows} <= {"", "train"}:
        rows = share(rows, digests)
    if "test" not in {split for _, _, split in rows}:
        rows = [(path, c, split.replace("val", "test")) for path, c, split in rows]
    classes = {split: {c for _, c, of in rows if of == split} for split in ("train", "val", "test")}
    for split in ("train", "test"):
        if not classes[split]:
            raise ValueError(f"{name} must have images for train, and for test or val; got none for {split}")
    if odd := sorted(classes["train"] ^ classes["test"] | classes["val"] - classes["train"]):
        raise ValueError(
            f"{name} must have the same classes in every split; got only in some: {', '.join(map(repr, odd))}"
        )
    label = {c: i for i, c in enumerate(sorted(classes["train"]))}
    parts = dict.fromkeys(classes)
    for split in parts:
        if mine := [(path, label[c]) for path, c, of in rows if of == split]:
            parts[split] = PictureFiles(f"{name} {split}", *map(list, zip(*mine, strict=True)), digests, root)
    return Splits(name, tuple(map(title, label)), **parts, source="your own images")


def share(rows, digests):
    """Half of each class for train, a fifth for val, the rest for test."""
    groups, split = defaultdict(dict), {}
    for path, c, _ in rows:
        groups[c][path] = digests.of(path)
    digests.save()
    for c, keys in groups.items():
        rank = {key: i for i, key in enumerate(sorted(set(keys.values())))}  # equal files are one
        if len(rank) < 2:
            raise ValueError(f"a class must have two different images to be split; got fewer of {c!r}")
        train, val = (len(rank) + 1) // 2, len(rank) // 5
        for path, key in keys.items():
            split[path] = "train" if rank[key] < train else "val" if rank[key] < train + val else "test"
    return [(path, c, split[path]) for path, c, _ in rows]


@hookimpl
def datasets():
    return {"folder": folder, "csv": csv_file}
