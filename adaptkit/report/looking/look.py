"""Looking at a dataset before anything is learned from it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaptkit.features.arranging import CannotSplitError
from adaptkit.features.cache import FeatureCache
from adaptkit.features.datasets import Joined, Splits, targets_of
from adaptkit.features.items import Source
from adaptkit.features.needs import Pooled
from adaptkit.report.looking.found import Alike, Doubt, Look
from adaptkit.report.looking.labels import doubtful, folds_of, out_of_fold
from adaptkit.report.looking.near import linked, measured_likeness, near_pairs
from adaptkit.report.looking.pictures import in_lines_of, see_all
from adaptkit.runs.loading import open_cache, pick_backbone, pick_dataset, pick_device
from adaptkit.runs.setting import Setting


def look(
    dataset: str, *, backbone: str = "packaged:lite0-minilm", with_test: bool = False, home: Path | None = None
) -> Look:
    """Look at a dataset's pictures and labels: what is there, what is there twice, and which labels are likely wrong.

    Args:
        dataset: e.g. ``"folder:my_photos"``.
        backbone: whose features tell near-copies and doubtful labels; ``""`` for none, then neither is told.
        with_test: read the labels of test, too; otherwise its pictures are compared and its labels left alone.
        home: where features are kept; default ``$ADAPTKIT_HOME``.

    Raises:
        ValueError: for a dataset or a backbone that is not there.

    >>> import adaptkit as ak
    >>> found = ak.look("toy", backbone="toy:0")
    >>> found.sizes["train"], list(found.counts)
    (100, ['train', 'val'])
    """
    return looked(dataset, backbone, with_test, home)[1]


def looked(
    dataset: str, backbone: str, with_test: bool, home: Path | None, progress: bool = False
) -> tuple[Splits, Look]:
    """The dataset by its name, and what was found of it."""
    splits, unsplit = opened_to_look(dataset, home)
    cache = None
    if backbone:
        setting = Setting(dataset=dataset, backbone=backbone)
        towers = pick_backbone(backbone).to(pick_device(setting.device))
        cache = open_cache(towers, setting, home=home, progress=progress)
    found = look_at(splits, cache, with_test=with_test, progress=progress)
    return splits, replace(found, notes=(*unsplit, *found.notes))


def opened_to_look(dataset: str, home: Path | None) -> tuple[Splits, list[str]]:
    """A dataset as methods get it; or, where it cannot be split for them, all of it under train, and a note why.

    Raises:
        ValueError: where it cannot be opened.
    """
    try:
        return pick_dataset(dataset, home), []
    except CannotSplitError as error:
        splits = pick_dataset(dataset, home, whole=True)
        return splits, [f"no method can learn from this as it is: {error}; all images are shown under train"]


def look_at(splits: Splits, cache: FeatureCache | None, *, with_test: bool = False, progress: bool = False) -> Look:
    """The same of a dataset and a cache that are open, e.g. those of a `Workspace`.

    Args:
        splits: the dataset.
        cache: where features are read; ``None`` to read none.
        with_test: read the labels of test, too.
        progress: show a bar while pictures are opened.
    """
    return Looking(splits, cache, with_test, progress).found()


class Looking:
    """One look at a dataset: what it reads, in the order it reads it."""

    def __init__(self, splits: Splits, cache: FeatureCache | None, with_test: bool, progress: bool) -> None:
        parts = {"train": splits.train, "val": splits.val, "test": splits.test}
        self.splits, self.cache, self.notes = splits, cache, list[str]()
        self.parts = {name: part for name, part in parts.items() if part is not None and len(part)}
        self.read = [name for name in self.parts if with_test or name != "test"]  # parts whose labels are read
        self.whole = Joined([*self.parts.values()])
        self.places = [(name, i) for name, part in self.parts.items() for i in range(len(part))]
        self.seen = [seen for part in self.parts.values() for seen in see_all(part, progress)]

    def found(self) -> Look:
        """Everything."""
        copies = self.copies()
        good = [i for i, seen in enumerate(self.seen) if seen.pixels]
        near, threshold = list[Alike](), 1.0
        doubts, judged, agreed = list[Doubt](), 0, 0.0
        if len(good) < len(self.seen):
            self.notes.append("what is no picture, or cannot be read, was compared with nothing")
        if self.cache is not None and good:
            x = self.cache.images(self.whole, Pooled(), torch.tensor(good))  # (N, D)
            near, threshold = self.near(x, good)
            doubts, judged, agreed = self.doubts(x, good, [*copies, *near])
        if "test" in self.parts and "test" not in self.read:
            self.notes.append("labels of test were not read; --with-test reads them")
        return Look(
            dataset=self.splits.name,
            classnames=self.splits.labelnames,
            sizes={name: len(part) for name, part in self.parts.items()},
            counts={name: self.counts(self.parts[name]) for name in self.read},
            names={name: places_of(part) for name, part in self.parts.items()},
            pictures=in_lines_of(self.seen),
            left_out=self.splits.left_out,
            unread=tuple((self.places[i], seen.wrong) for i, seen in enumerate(self.seen) if seen.wrong),
            copies=tuple(copies),
            near=tuple(near),
            threshold=threshold,
            doubts=tuple(doubts),
            judged=judged,
            agreed=agreed,
            notes=tuple(self.notes),
        )

    def counts(self, part: Source) -> list[int]:
        """Images of each class."""
        targets, classes = targets_of(part), len(self.splits.classnames)
        if self.splits.kind == "classification":
            return targets.bincount(minlength=classes).tolist()
        return targets.sum(0).tolist() if self.splits.kind == "multi-label" else []

    def copies(self) -> list[Alike]:
        """Images of the same pixels."""
        of = defaultdict[str, list[int]](list)
        for i, seen in enumerate(self.seen):
            if seen.pixels:
                of[seen.pixels].append(i)
        return [self.alike(rows, 1.0) for rows in of.values() if len(rows) > 1]

    def alike(self, rows: Sequence[int], cosine: float) -> Alike:
        """A group of images, with the labels that may be read."""
        places = tuple(self.places[i] for i in rows)
        one_label = self.splits.kind == "classification"
        labels = {int(self.parts[part].labels[i]) for part, i in places if part in self.read} if one_label else set()
        return Alike(places, cosine, tuple(sorted(labels)))

    def near(self, x: Tensor, good: Sequence[int]) -> tuple[list[Alike], float]:
        """Images that nearly show the same, and from which cosine on they do."""
        small = torch.from_numpy(np.stack([self.seen[i].small for i in good]))  # type: ignore[misc]
        least = measured_likeness(self.whole, good, x, small, self.cache)  # type: ignore[arg-type]
        first = dict[str, int]()
        copy_of = [first.setdefault(self.seen[i].pixels, n) for n, i in enumerate(good)]
        pairs = [pair for pair in near_pairs(x, small, least) if copy_of[pair[0]] != copy_of[pair[1]]]
        group, rows = linked(len(good), [pair[:2] for pair in pairs]), defaultdict[int, list[int]](list)
        for n, of in enumerate(group):
            rows[of].append(good[n])
        cosine = defaultdict[int, list[float]](list)
        for one, _, value in pairs:
            cosine[group[one]].append(value)
        return [self.alike(rows[of], min(values)) for of, values in sorted(cosine.items())], least.cosine

    def doubts(self, x: Tensor, good: Sequence[int], groups: Sequence[Alike]) -> tuple[list[Doubt], int, float]:
        """Likely wrong labels among those that may be read, how many were judged, and how many were agreed with."""
        if self.splits.kind != "classification":
            self.notes.append(f"labels of {self.splits.kind} are not judged: an image has no one class")
            return [], 0, 0.0
        at = {place: n for n, place in enumerate(self.places)}
        pairs = [pair for alike in groups for pair in pairwise(at[place] for place in alike.places)]
        group = linked(len(self.places), pairs)
        rows = [n for n, i in enumerate(good) if self.places[i][0] in self.read]
        apart = Counter(label for label, _ in {(self.whole.labels[good[n]], group[good[n]]) for n in rows})
        rows = [n for n in rows if apart[self.whole.labels[good[n]]] > 1]
        if few := sum(count < 2 for count in apart.values()):
            classes_have = "class has" if few == 1 else "classes have"
            self.notes.append(f"{few:,} {classes_have} fewer than two different images: labels of these are not judged")
        labels = [int(self.whole.labels[good[n]]) for n in rows]
        classes = sorted({*labels})
        if len(classes) < 2:
            self.notes.append("labels are not judged: two classes must have two different images each")
            return [], 0, 0.0
        given = torch.tensor([classes.index(label) for label in labels])
        p = out_of_fold(x[rows], given, len(classes), folds_of(labels, [group[good[n]] for n in rows]))
        agreed, chance = float((p.argmax(1) == given).double().mean()), float(given.bincount().max()) / len(given)
        if agreed < chance + 2 * (chance * (1 - chance) / len(given)) ** 0.5:
            told = f"right on {agreed:.0%} of them, and always saying the largest class on {chance:.0%}"
            self.notes.append(f"labels are not judged: by these features a classifier is {told}")
            return [], 0, 0.0
        found = [
            Doubt(self.places[good[rows[k]]], labels[k], classes[likely], margin)
            for k, likely, margin in doubtful(p, given)
        ]
        return found, len(rows), agreed


def places_of(source: Source) -> list[str]:
    """Where each item of a source lies, or its number."""
    return [str(getattr(source, "where", int)(i)) for i in range(len(source))]
