"""Retrieval's datasets in the files that they are published as, read from your disk.

``coco-captions:PLACE`` and ``flickr30k:PLACE`` read Karpathy's split, ``dataset_coco.json`` or
``dataset_flickr30k.json``: images with about five sentences each; restval counts as train. Images lie in the folder
that the file names, or in ``images`` or ``flickr30k-images``, of PLACE. ``msrvtt:PLACE`` reads ``MSRVTT_data.json``,
and the split called 1k-A, ``MSRVTT_JSFUSION_test.csv`` and ``MSRVTT_train.9k.csv``; a video is a folder of its frames,
``frames/VIDEO/*.jpg``, in the order of their names. ``cirr:PLACE`` reads ``cirr/captions/cap.rc2.*.json`` and
``cirr/image_splits/split.rc2.*.json``; the test targets are not published, so that the validation queries are its test.

Source: Karpathy and Fei-Fei, Deep Visual-Semantic Alignments, arXiv:1412.2306; Xu et al., MSR-VTT, CVPR 2016, with the
split of Yu et al., arXiv:1808.02559; Liu et al., Image Retrieval on Real-Life Images with Pre-Trained
Vision-and-Language Models, arXiv:2108.04024.
Deviations: videos are not decoded here.
"""

import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from adaptkit import Captions, Composite, Splits, hookimpl
from adaptkit.features.sources import PictureFiles
from adaptkit.features.split_files import inside
from adaptkit.io.digests import FileDigests
from adaptkit.io.files import digest
from adaptkit.io.home import home
from adaptkit.io.jsons import read_json
from adaptkit.io.paths import expanded, read_file
from adaptkit.io.pictures import SUFFIXES, decode


@dataclass(frozen=True, eq=False)
class FrameFolders:
    """Sequences of images, each a folder of them; a frame is decoded when it is asked for."""

    name: str
    folders: tuple[Path, ...]
    digests: Any

    def __len__(self):
        return len(self.folders)

    @property
    def labels(self):
        return range(len(self))

    def where(self, i):
        return self.folders[i].name

    def frames(self, i):
        found = sorted(path for path in self.folders[i].glob("*") if path.suffix.lower() in SUFFIXES)
        if not found:
            raise ValueError(f"frames of {self.name} must lie in {str(self.folders[i])!r}; got none")
        return found

    def key(self, i):
        return digest("".join(self.digests.of(path) for path in self.frames(i)).encode())

    def open(self, i):
        return self.key(i), Decoded(self.frames(i))


@dataclass(frozen=True)
class Decoded:
    """Frames that are decoded one by one."""

    paths: list[Path]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, k):
        return decode(self.paths[k], repr(str(self.paths[k])))


def root_of(name, place, file):
    """The folder of a dataset, which has a file.

    Raises:
        ValueError: when it is not there.
    """
    root = expanded(place or name)
    if not place or not (root / file).is_file():
        raise ValueError(f"{name} must be written {name}:FOLDER, a folder with {file}; got {place!r}")
    return root


def by_text(name, parts, about):
    """A dataset from its parts, each the source of items, their names, and ``(text, place of the item)`` pairs."""
    if not all(len(texts) for _, _, texts in parts.values()):
        raise ValueError(f"{name} must have texts to learn from and to test with; got none in one of these")
    made = {}
    for part, (items, _, texts) in parts.items():
        of = [place for _, place in texts]
        said = {"text": (Captions([text for text, _ in texts]), range(len(of)))}
        made[part] = Composite(f"{name} {part}", said if part == "test" else {**said, "item": (items, of)}, labels=of)
    gallery, names, _ = parts["test"]
    return Splits(name, tuple(names), made["train"], made["test"], kind="ranking", gallery=gallery, source=about)


def karpathy(place="", *, name, file):
    root, digests = root_of(name, place, file), FileDigests(home() / "digests")
    rows, parts = read_json(root / file)["images"], {}
    for part, splits in (("train", ("train", "restval")), ("test", ("test",))):
        own = [row for row in rows if row["split"] in splits]
        names = [inside(row["filename"], f"{name}'s {file}") for row in own]
        folders = [row.get("filepath") or default_folder(root) for row in own]
        paths = [root / inside(f"{folder}/{each}", file) for folder, each in zip(folders, names, strict=True)]
        texts = [(sentence["raw"].strip(), i) for i, row in enumerate(own) for sentence in row["sentences"]]
        parts[part] = PictureFiles(f"{name} {part} images", paths, range(len(paths)), digests, root), names, texts
    return by_text(name, parts, f"{name}, Karpathy's split, from {file}")


def default_folder(root):
    """Where images lie whose file names no folder."""
    return next((each for each in ("flickr30k-images", "images") if (root / each).is_dir()), ".")


def msrvtt(place=""):
    root = root_of("msrvtt", place, "MSRVTT_data.json")
    digests, said = FileDigests(home() / "digests"), read_json(root / "MSRVTT_data.json")["sentences"]
    tested = [(row["video_id"], row["sentence"]) for row in table(root / "MSRVTT_JSFUSION_test.csv")]
    learned = [row["video_id"] for row in table(root / "MSRVTT_train.9k.csv")]
    at, parts = {video: i for i, video in enumerate(learned)}, {}
    texts = {"train": [(row["caption"], at[row["video_id"]]) for row in said if row["video_id"] in at]}
    texts["test"] = [(text, i) for i, (_, text) in enumerate(tested)]
    for part, videos in (("train", learned), ("test", [video for video, _ in tested])):
        folders = tuple(root / "frames" / inside(video, "MSRVTT") for video in videos)
        parts[part] = FrameFolders(f"msrvtt {part} videos", folders, digests), videos, texts[part]
    return by_text("msrvtt", parts, "MSR-VTT, split 1k-A")


def table(path):
    """The rows of a CSV file by its head."""
    if not path.is_file():
        raise ValueError(f"msrvtt must have {path.name} in its folder; got none in {str(path.parent)!r}")
    return [*csv.DictReader(read_file(path).decode("utf-8-sig").splitlines())]


def cirr(place=""):
    root = root_of("cirr", place, "cirr/captions/cap.rc2.train.json")
    digests, made = FileDigests(home() / "digests"), {}
    for part, split in (("train", "train"), ("test", "val")):
        files = read_json(root / "cirr" / "image_splits" / f"split.rc2.{split}.json")
        paths = [root / inside(path.removeprefix("./"), "cirr") for path in files.values()]
        items = PictureFiles(f"cirr {split} images", paths, range(len(paths)), digests, root)
        at = {each: i for i, each in enumerate(files)}
        rows = read_json(root / "cirr" / "captions" / f"cap.rc2.{split}.json")
        places = [at[row["target_hard"]] for row in rows]
        asked = {"text": (Captions([row["caption"] for row in rows]), range(len(rows)))}
        asked |= {"image": (items, [at[row["reference"]] for row in rows])}
        parts = asked if part == "test" else {**asked, "item": (items, places)}
        made[part] = Composite(f"cirr {split}", parts, labels=places), items, [*files]
    (train, _, _), (test, gallery, names) = made["train"], made["test"]
    about = "CIRR, its validation queries, as the test targets are not published"
    return Splits("cirr", tuple(names), train, test, kind="ranking", gallery=gallery, source=about)


@hookimpl
def datasets():
    coco = partial(karpathy, name="coco-captions", file="dataset_coco.json")
    flickr = partial(karpathy, name="flickr30k", file="dataset_flickr30k.json")
    return {"cirr": cirr, "coco-captions": coco, "flickr30k": flickr, "msrvtt": msrvtt}
