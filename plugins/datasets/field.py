"""The datasets of the field, read from your disk in the layouts that CoOp's DATASETS.md describes.

``dtd`` lies in ``$ADAPTKIT_DATA/dtd``; ``dtd:PATH`` in PATH, or in a folder of PATH. What is known of each (layout,
counts, digest of the split file, template, licence, where to get it) is in ``field.json`` beside this file, with null
for what nobody has checked. ``adaptkit data check dtd`` holds it against your disk. ``field_files.json`` has the files
that ``adaptkit data get dtd`` gets: addresses, sizes, digests and who states them, and what is done by hand.

A class is its label, never its name: ImageNet has two missiles. ImageNet's variants are tests only, with the classes
that they have. Beside ``imagenet`` they are its domains, too, labelled as it is by the WordNet ids of their folders;
``classes`` of such a source are the labels it has. ImageNet's validation images are its test images.

Source: Zhou et al., Learning to Prompt for Vision-Language Models, arXiv:2109.01134 (layouts and splits); Liu et al.,
Large-Scale Long-Tailed Recognition in an Open World, arXiv:1904.05160 (the two lists with a long tail).
Deviations: images in a folder are sorted by name; CoOp takes ImageNet's in the order the file system has them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adaptkit import Splits, hookimpl
from adaptkit.features.sources import PictureFiles
from adaptkit.features.split_files import PARTS, inside, read_split
from adaptkit.io.digests import FileDigests
from adaptkit.io.home import home
from adaptkit.io.jsons import read_json
from adaptkit.io.paths import expanded
from adaptkit.io.pictures import SUFFIXES


@dataclass(frozen=True)
class Images(PictureFiles):
    """Labelled image files; `classes` are the labels that occur in a domain, ``None`` for all."""

    classes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Field:
    """One dataset. Call it with a place to read it."""

    name: str
    entry: Mapping
    fetch: Mapping | None = None  # what `adaptkit data get` gets of it, as in field_files.json

    def __call__(self, place=""):
        root, digests, domains = self.root(place), FileDigests(home() / "digests"), {}
        names, ids, parts = self.read(root)
        train, val, test = (self.images(root, part, parts.get(part, ()), digests) for part in PARTS)
        for field in map(FIELDS.get, self.entry.get("domains", ())):
            if there := field.find([root.parent / folder for folder in field.entry["folders"]], files=False):
                domains[field.name] = field.domain(there, ids, digests)
        about = f"{self.entry['title']}, {self.entry['where']}; licence: {self.entry['licence']}"
        more = {"domains": domains, "templates": tuple(self.entry["templates"]), "source": about}
        return Splits(self.name, tuple(names), train, test, val if len(val) else None, **more)

    def images(self, root, part, rows, digests, classes=None):
        return Images(f"{self.name} {part}", [path for path, _ in rows], [c for _, c in rows], digests, root, classes)

    def wrong(self, must, got):
        return ValueError(f"dataset {self.name!r} must {must}; got {got}; see adaptkit data check {self.name}")

    def find(self, folders, files=True):
        """The first of some folders that has a file of this dataset, or else a folder of its images."""
        marks = [self.entry["files"]] * files + [[*filter(None, self.entry["images"])]]
        return next((at for some in marks for at in folders if any((at / mark).exists() for mark in some)), None)

    def root(self, place):
        """The folder of the dataset: a place, or in a place, or in ``$ADAPTKIT_DATA``."""
        folders, base = self.entry["folders"], place or os.environ.get("ADAPTKIT_DATA", "")
        if not base:
            raise self.wrong(f"lie in $ADAPTKIT_DATA/{folders[0]}, or be written {self.name}:PATH", "no ADAPTKIT_DATA")
        choices = [expanded(base).absolute() / name for name in ([""] * bool(place) + folders)]
        if found := self.find(choices):
            return found
        mark = [*self.entry["files"], *self.entry["images"]][0]
        raise self.wrong(f"lie in {str(choices[0])!r}", f"no {mark} there" if choices[0].is_dir() else "no such folder")

    def file(self, root, name, must=True):
        """A file of the dataset; what shares ImageNet's classes may use ImageNet's list of them."""
        path = next((path for path in (root / name, root.parent / "imagenet" / name) if path.is_file()), None)
        if must and path is None:
            raise self.wrong(f"have {name} in {str(root)!r}", "none")
        return path

    def rows(self, root, name, cut=str.partition):
        """Two values from each line of a file, cut at the first space."""
        lines = map(str.strip, self.file(root, name).read_text(encoding="utf-8").splitlines())
        rows = [cut(line, " ")[::2] for line in lines if line]
        if odd := [row for row in rows if not all(row)]:
            raise self.wrong(f"have two values on each line of {name}", repr("".join(odd[0])))
        return rows

    def named(self, root, ids=None):
        """Class names by WordNet id, of some ids or of all in classnames.txt."""
        names = dict(rows := self.rows(root, "classnames.txt"))
        if len(names) < len(rows):
            raise self.wrong("have each id once in classnames.txt", "one twice")
        if odd := [folder for folder in ids or () if folder not in names]:
            raise self.wrong("have folders named by ids of classnames.txt", repr(odd[0]))
        return names if ids is None else {folder: names[folder] for folder in ids}

    def read(self, root):
        """Class names, the ids of their folders where they are known, and ``(path, label)`` pairs by part."""
        choices = [root / name for name in self.entry["images"]]
        names, ids, parts = READERS[self.entry["reader"]](self, root, choices)
        first = next((file for rows in parts.values() for file, _ in rows), "images")
        found = next((choice for choice in choices if (choice / first).is_file()), None)
        if found is None:
            raise self.wrong(f"have its images in {str(choices[0])!r}", f"no {first}")
        return names, ids, {part: [(os.path.join(found, f), c) for f, c in rows] for part, rows in parts.items()}

    def domain(self, root, ids, digests):
        """The images as a domain of a dataset whose classes have these ids."""
        _, own, parts = self.read(root)
        label = {folder: c for c, folder in enumerate(ids)}
        if odd := set(own) - set(ids):
            raise self.wrong("have classes of imagenet alone", repr(min(odd)))
        rows = [(path, label[own[c]]) for path, c in parts["test"]]
        return self.images(root, "test", rows, digests, tuple(label[f] for f in own) if len(own) < len(ids) else None)


def split_file(field, root, choices):
    parts = read_split(field.file(root, field.entry["files"][0]))
    pairs = sorted({(label, name) for rows in parts.values() for _, label, name in rows})
    if [label for label, _ in pairs] != list(range(len(pairs))):
        raise field.wrong("have labels from 0 on in its split file, each with one class name", f"{len(pairs)} pairs")
    return [n for _, n in pairs], (), {part: [row[:2] for row in rows] for part, rows in parts.items()}


def fgvc(field, root, choices):
    names = field.file(root, "variants.txt").read_text(encoding="utf-8").split("\n")
    label, parts = {name: c for c, name in enumerate(filter(None, map(str.strip, names)))}, {}
    for part, file in zip(PARTS, field.entry["files"][1:], strict=True):
        rows = field.rows(root, file)
        if odd := [name for _, name in rows if name not in label]:
            raise field.wrong("have only classes of variants.txt", repr(odd[0]))
        parts[part] = [(inside(f"{image}.jpg", file), label[name]) for image, name in rows]
    return list(label), (), parts


def tree(field, root, choices, kind):
    """Folders that stand for classes: all in train and val, or tests named by id, or by number."""
    parts = {"train": "train/", "test": "val/"} if kind == "imagenet" else {"test": ""}
    base = next((choice for choice in choices if (choice / next(iter(parts.values()))).is_dir()), choices[0])
    found = sorted(path.name for path in base.glob("[!.]*") if path.is_dir()) if kind == "subset" else None
    names, rows = field.named(root, found), {}
    for part, prefix in parts.items():
        rows[part] = []
        for c, name in enumerate(names if kind != "numbered" else map(str, range(len(names)))):
            if not (base / prefix / name).is_dir():
                raise field.wrong(f"have a folder {prefix}{name} in {str(base)!r}", "none")
            files = sorted(os.listdir(base / prefix / name))
            rows[part] += [(f"{prefix}{name}/{f}", c) for f in files if f.lower().endswith(SUFFIXES) and f[0] != "."]
    return list(names.values()), list(names), rows


def lists(field, root, choices):
    parts, folders = {}, set()
    for part, name in zip(PARTS, field.entry["files"], strict=False):
        rows = field.rows(root, name, str.rpartition)
        if odd := [label for _, label in rows if not label.isdecimal()]:
            raise field.wrong(f"have labels behind the paths in {name}", repr(odd[0]))
        parts[part] = [(inside(file, name), int(label)) for file, label in rows]
    for file, label in parts["train"]:  # train/airfield/1.jpg, or data_256/a/arena/hockey/1.jpg
        folders.add((label, "-".join(part for part in file.split("/")[1:-1] if len(part) > 1)))
    if [label for label, _ in sorted(folders)] != list(range(len(folders))):
        raise field.wrong("have labels from 0 on in its lists, each with one folder", f"{len(folders)} pairs")
    ids = [folder for _, folder in sorted(folders)]
    names = field.named(root, ids) if "classnames.txt" in field.entry["files"] else {folder: folder for folder in ids}
    return [names[folder] for folder in ids], ids, parts


READERS = {"split": split_file, "fgvc": fgvc, "lists": lists}
READERS |= {kind: partial(tree, kind=kind) for kind in ("imagenet", "subset", "numbered")}
ENTRIES, FILES = (read_json(Path(__file__).with_name(f"field{more}.json")) for more in ("", "_files"))
FIELDS = {name: Field(name, entry, FILES[name]) for name, entry in ENTRIES.items()}


@hookimpl
def datasets():
    return dict(FIELDS)
