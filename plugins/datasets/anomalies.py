"""Folders of anomaly detection in the published layouts. ``mvtec:PLACE/bottle``, ``visa:PLACE/candle``.

MVTec AD has, of each object, ``train/good``, ``test/good``, ``test/<defect>`` and ``ground_truth/<defect>``, whose
masks are called as the images, with ``_mask``. VisA has a table ``split_csv/1cls.csv`` of object, split, label, image
and mask. Training images are normal. Pictures and masks become squares, as in the papers' code, masks of 256 pixels.

Source: Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 129, 2021; Zou et al., SPot-the-Difference
Self-Supervised Pre-training for Anomaly Detection and Segmentation, arXiv:2207.14315.
Deviations: a pixel of a mask is anomalous where any of those it was made of is; papers differ in how they resize masks.
"""

import csv
from dataclasses import dataclass

import numpy as np
from PIL import Image

from adaptkit import Splits, hookimpl
from adaptkit.features.sources import PictureFiles
from adaptkit.io.digests import FileDigests
from adaptkit.io.files import digest
from adaptkit.io.home import home
from adaptkit.io.paths import expanded, resolved
from adaptkit.io.pictures import decode, is_picture

SIDE = 256  # of masks, pixels


@dataclass(frozen=True)
class Squares(PictureFiles):
    """Image files, squashed to squares."""

    def key(self, i):
        return digest(f"{super().key(i)} square".encode())

    def open(self, i):
        key, image = super().open(i)
        side = max(image.size)
        return digest(f"{key} square".encode()), image.resize((side, side), Image.Resampling.BICUBIC)


def part(name, root, rows):
    """A source of rows of (picture, mask or nothing)."""
    files = [path for path, _ in rows]
    masks = [mask_of(mask) for _, mask in rows]
    return Squares(name, files, [0] * len(files), FileDigests(home() / "digests"), root, targets=masks)


def mask_of(path):
    """A mask, ``(256, 256)`` of 0 and 1; of nothing, zeros."""
    if path is None:
        return np.zeros((SIDE, SIDE), dtype=np.uint8)
    whole = np.asarray(decode(path, repr(str(path))).convert("L")) > 0
    share = Image.fromarray(255 * whole.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BOX)
    return (np.asarray(share) > 0).astype(np.uint8)


def pictures(folder):
    """The pictures in a folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if is_picture(path)) if folder.is_dir() else []


def named(scheme, place, inside):
    """The folder of one object, which holds `inside`."""
    root = expanded(place)
    if not place or not (root / inside).is_dir():
        near = sorted(path.name for path in root.iterdir() if (path / inside).is_dir()) if root.is_dir() else []
        hint = f"; its objects are {', '.join(near)}" if place and near else ""
        raise ValueError(f"{scheme}: must name the folder of one object, with {inside}; got {place!r}{hint}")
    return root.absolute()


def mvtec(place=""):
    root = named("mvtec", place, "train/good")
    train = [(path, None) for path in pictures(root / "train" / "good")]
    test = []
    for folder in (
        sorted(path for path in (root / "test").iterdir() if path.is_dir()) if (root / "test").is_dir() else ()
    ):
        for path in pictures(folder):
            mask = None if folder.name == "good" else root / "ground_truth" / folder.name / f"{path.stem}_mask.png"
            if mask is not None and not mask.is_file():
                raise ValueError(f"an anomalous image must have a mask; got none of {str(path)!r} at {str(mask)!r}")
            test.append((path, mask))
    return splits(f"mvtec:{place}", root, train, test)


def visa(place=""):
    root = named("visa", place, "Data/Images")
    table = root.parent / "split_csv" / "1cls.csv"
    if not table.is_file():
        raise ValueError(f"visa: must have a table split_csv/1cls.csv beside the object; got {place!r}")
    parts = {"train": [], "test": []}
    with open(table, newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            missing = {"object", "split", "label", "image", "mask"} - row.keys()
            if missing or None in row.values() or row["split"] not in parts:
                raise ValueError(f"{str(table)!r} must say object, split, label, image and mask; got {row}")
            if row["object"] == root.name:
                mask = row["mask"] if row["label"] == "anomaly" else ""
                paths = [resolved(root.parent / own) for own in (row["image"], mask) if own]
                if outside := [p for p in paths if not p.is_relative_to(resolved(root.parent)) or not p.is_file()]:
                    raise ValueError(f"{str(table)!r} must name files beside it; got {str(outside[0])!r}")
                parts[row["split"]].append((paths[0], paths[1] if mask else None))
    return splits(f"visa:{place}", root, parts["train"], parts["test"])


def splits(name, root, train, test):
    """A dataset of one object."""
    if not train or not test:
        raise ValueError(f"{name} must have images to learn from and to be judged by; got {len(train)} and {len(test)}")
    source = "MVTec AD, CC BY-NC-SA 4.0" if name.startswith("mvtec") else "VisA, CC BY 4.0"
    parts = {"train": part("train", root, train), "test": part("test", root, test)}
    return Splits(name, (root.name,), **parts, source=source, kind="maps")


@hookimpl
def datasets():
    return {"mvtec": mvtec, "visa": visa}
