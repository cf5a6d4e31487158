"""Your own images, without code: a folder per class, a csv file, or a split file.

``folder:photos`` holds ``photos/<class>/*.jpg``, or ``photos/<train, val or test>/<class>/*.jpg``; ``_`` and ``-`` in
the name of a class are read as spaces. ``csv:photos.csv`` has the columns ``path`` (from the csv file's folder, and
inside it), ``label`` (a name) and perhaps ``split``; classes are sorted by name. Where an image may be of several
classes, the column is called ``labels``, with ``|`` between them, or each class has a column of zeros and ones.
``split:split_mine.json`` is a file as CoOp's ``split_zhou_*.json``: lists train, val and test of [path, label, class
name], with paths from the file's folder or a folder in it; any other is named behind ``#``: ``split:mine.json#photos``.

Without splits, each class is split here: in the order of its files' sha256, the first half is train, the next fifth val
and the rest test, on every machine alike; equal files stay together. Without test, val is test. Val may be missing; to
a split file without it, the last fifth of each class of train is val. Of images that are only answered, as those of a
domain, test is enough, and without splits all are answered. An image that cannot be read is left out as if it were not
there; it is named, as are files that are no images.
Deviations: orientation in EXIF is not applied, as in the papers' loaders. Of an animation, the first frame is read.
"""

import csv
from collections import Counter
from pathlib import Path

from adaptkit import hookimpl
from adaptkit.features.arranging import NAMES, Found, arrange, part_named
from adaptkit.features.sources import PictureFiles
from adaptkit.features.split_files import class_names, find_root, read_split
from adaptkit.io.digests import FileDigests
from adaptkit.io.errors import must_be
from adaptkit.io.home import home
from adaptkit.io.hub import nearest
from adaptkit.io.paths import expanded, resolved
from adaptkit.io.pictures import SUFFIXES, counted, files_below, is_picture, own

SEPARATORS = "|;"  # between the labels of one image


def folder(place, answered=False, whole=False):
    root = existing("folder:", place, Path.is_dir).absolute()
    inside = folders(root)
    split = [path for path in inside if path.name.lower() in NAMES and folders(path) and not pictures(path)]
    parts = {path: part_named(path.name, f"a folder beside {str(split[0])!r}") for path in inside} if split else {}
    if twice := [part for part, count in Counter(parts.values()).items() if count > 1]:
        got = " and ".join(path.name for path, part in parts.items() if part == twice[0])
        raise ValueError(f"{str(root)!r} must have one folder for {twice[0]}; got {got}")
    rows = []
    for part, name in parts.items() or [(root, "")]:
        if not folders(part):
            raise ValueError(
                f"{str(part)!r} must hold one folder per class, or train, val and test with these; got none"
            )
        for path in folders(part):
            files = pictures(path)
            if not files:
                got = counted(files_below(path)) or "no file"
                raise ValueError(f"{str(path)!r} must hold the images of a class, {', '.join(SUFFIXES)}; got {got}")
            rows += [(file, path.name, name) for file in files]
    return arrange(
        listed(f"folder:{place}", root, rows, notes=stray(root, [file for file, *_ in rows])),
        title=lambda name: name.replace("_", " ").replace("-", " "),
        answered=answered,
        whole=whole,
    )


def stray(root, read):
    """A line about each kind of file that is not read."""
    rest = sorted({path for path in files_below(root) if home().absolute() not in path.parents} - {*read})
    kinds = {
        "whose suffixes are none of an image": [file for file in rest if file.suffix.lower() not in SUFFIXES],
        "which lie in no class's folder, or deeper in one": [file for file in rest if is_picture(file)],
        "which are no files": [file for file in rest if file.suffix.lower() in SUFFIXES and not file.is_file()],
    }
    head = f"read {len(read):,} of {len(read) + len(rest):,} files; left out"
    return tuple(
        f"{head} {counted(files)}, {why}, the first {str(files[0])!r}" for why, files in kinds.items() if files
    )


def csv_file(place, answered=False, whole=False):
    file = existing("csv:", place, Path.is_file)
    root, rows = resolved(file.parent), {}
    try:
        with open(file, newline="", encoding="utf-8-sig") as lines:
            if file.suffix.lower() == ".json" or lines.read(1) in ("{", "["):
                raise ValueError(
                    f"csv: must name a csv file; got {place!r}, a JSON file; a split file is split:{place}"
                )
            lines.seek(0)
            reader = csv.DictReader(lines, strict=True, skipinitialspace=True)
            names = columns(reader, file)
            for row in reader:
                line = f"line {reader.line_num} of {str(file)!r}"
                if None in row or not all(row.values()):
                    raise ValueError(f"{line} must have a value for each of {', '.join(reader.fieldnames)}")
                row = {column: value.strip() for column, value in row.items()}
                split = part_named(row["split"], f"split in {line}") if "split" in row else ""
                path = resolved(root / row["path"].replace("\0", "?"))  # no file is called so
                if not path.is_relative_to(root):
                    raise ValueError(f"path in {line} must stay inside {str(root)!r}; got {row['path']!r}")
                label = labels(row, names, line)
                if path in rows:
                    more = "" if rows[path][0] == label else "; of an image of several classes, write labels: a|b"
                    raise ValueError(f"path in {line} must be new; got {row['path']!r} again{more}")
                existing(f"path in {line}", str(path), Path.is_file)
                rows[path] = label, split
    except (UnicodeDecodeError, csv.Error) as cause:
        raise ValueError(f"{str(file)!r} must be a csv file in UTF-8: {cause}") from None
    if not rows:
        raise ValueError(f"{str(file)!r} must have a line per image; got none below the header")
    several = names is not None
    rows = [(path, *row) for path, row in rows.items()]
    if not several:
        told_apart(rows, file)
    return arrange(
        listed(f"csv:{place}", root, rows, several=several), names=names or (), answered=answered, whole=whole
    )


def columns(reader, file):
    """The classes that have columns of their own, none for ``labels``, or ``None`` where an image has one label."""
    head = list(reader.fieldnames or ())
    classes = [column for column in head if column not in ("path", "split")]
    if twice := [column for column in head if head.count(column) > 1]:
        raise ValueError(f"a column of {str(file)!r} must be there once; got {twice[0]!r} twice")
    if "path" in head and len(classes) > 1 and "label" not in head and "labels" not in head:
        return classes
    for column in classes:
        if column not in ("label", "labels"):
            raise ValueError(must_be(f"a column of {str(file)!r}", ("path", "label", "split"), column))
    if absent := [c for c in ("label", "path") if c not in head and (c == "path" or "labels" not in head)]:
        raise ValueError(f"{str(file)!r} must have columns path and label, split if you like; got no {absent[0]}")
    if {"label", "labels"} <= {*head}:
        raise ValueError(f"{str(file)!r} must have a column label, or labels where images have several; got both")
    return () if "labels" in head else None


def labels(row, names, line):
    """The class in a row, or the classes where it may have several."""
    if names is None:
        return row["label"]
    if not names:
        cell = row["labels"]
        for separator in SEPARATORS[1:]:
            cell = cell.replace(separator, SEPARATORS[0])
        return tuple(dict.fromkeys(filter(None, map(str.strip, cell.split(SEPARATORS[0])))))
    if odd := [f"{row[name]!r} for {name!r}" for name in names if row[name] not in ("0", "1", "0.0", "1.0")]:
        raise ValueError(
            f"{line} must have 0 or 1 in each column of a class; got {odd[0]}; or have columns path and label"
        )
    return tuple(c for c, name in enumerate(names) if float(row[name]))


def told_apart(rows, file):
    """Refuse several labels in one cell: both sides of a separator are labels of other images."""
    known = {label for _, label, _ in rows}
    for path, label, _ in rows:
        for separator in (*SEPARATORS, ","):
            if separator in label and all(part.strip() in known for part in label.split(separator)):
                raise ValueError(
                    f"label in {str(file)!r} must be one class; got {label!r} for {path.name!r}; where images are of "
                    f"several classes call the column labels, with {SEPARATORS[0]} between them"
                )


def split_file(place, answered=False, whole=False):
    name, _, where = place.partition("#")
    file = existing("split:", name, Path.is_file)
    raw = read_split(file, must=())
    names, rows = class_names(raw, file), [(part, *item) for part, items in raw.items() for item in items]
    if twice := [path for path, count in Counter(path for _, path, *_ in rows).items() if count > 1]:
        raise ValueError(f"{str(file)!r} must name each image once; got {twice[0]!r} again")
    root = existing("split: behind #", where, Path.is_dir) if where else find_root(file, [path for _, path, *_ in rows])
    if absent := [path for _, path, *_ in rows if not (root / path).is_file()]:
        raise ValueError(
            f"{str(file)!r} must name images that are there; got {len(absent):,} of {len(rows):,} that are not in "
            f"{str(root)!r}, the first {absent[0]!r}; name their folder as split:{name}#FOLDER"
        )
    found = listed(f"split:{place}", root, [(root / path, c, part) for part, path, c, _ in rows])
    return arrange(found, names=names, answered=answered, whole=whole, val=True)


def existing(what, place, good):
    """A path, or an error with the nearest one that exists."""
    path = expanded(place)
    if place and good(path):
        return path
    kind, hint = ("folder" if good is Path.is_dir else "file"), nearest(path, good)
    if place and kind == "folder" and path.is_file():
        hint = f", a file; a table is csv:{place}, a split file split:{place}"
    if place and kind == "file" and path.is_dir() and what in ("csv:", "split:"):
        hint = f", a folder; a folder of classes is folder:{place}"
    raise ValueError(f"{what} must name a {kind} that exists; got {place!r}{hint}")


def folders(root):
    ours = home().absolute()  # it may lie beside the images
    return sorted(path for path in root.iterdir() if path.is_dir() and own(path.name) and path != ours)


def pictures(root):
    return sorted(path for path in root.iterdir() if own(path.name) and is_picture(path))


def listed(name, root, rows, **more):
    """Pictures from rows of (path, class or classes, split); paths lie below the root."""
    paths, classes, parts = map(list, zip(*rows, strict=True))
    files = PictureFiles(name, paths, [0] * len(paths), FileDigests(home() / "digests"), root)
    return Found(name, files, classes, parts, **more)


@hookimpl
def datasets():
    return {"folder": folder, "csv": csv_file, "split": split_file}
