"""What was found of a dataset by looking at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

Place = tuple[str, int]  # a part, and the number of an image in it


@dataclass(frozen=True)
class Alike:
    """Images that show the same, or nearly the same.

    Attributes:
        places: part and number of each, two or more.
        cosine: the least similarity that links them; 1 where all are the same pixels.
        labels: the labels that were read of them, sorted; more than one where they contradict each other.
    """

    places: tuple[Place, ...]
    cosine: float
    labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Doubt:
    """An image whose label is likely wrong.

    Attributes:
        place: its part and number.
        label: as it is labelled.
        likely: the class that it looks like.
        margin: probability of `likely` minus that of `label`, from 0 to 1; the larger, the likelier it is wrong.
    """

    place: Place
    label: int
    likely: int
    margin: float


@dataclass(frozen=True)
class Look:
    """What was found of a dataset by looking at it; see `look`.

    Attributes:
        dataset: its name.
        classnames: of its C classes.
        sizes: images of each part.
        counts: images of each class, by part; parts whose labels were not read are left out.
        names: where each image lies, by part.
        pictures: what was seen of the pictures: formats, sizes and modes, in lines.
        left_out: images that cannot be read, with the reason.
        copies: images of the same pixels.
        near: images that nearly show the same, by their features; copies are not repeated.
        threshold: the cosine from which on two images count as nearly the same; 1 where no features were read.
        doubts: likely wrong labels, the likeliest first.
        judged: images whose labels were held against the others'.
        notes: what could not be told, and why.
    """

    dataset: str
    classnames: tuple[str, ...]
    sizes: Mapping[str, int]
    counts: Mapping[str, Sequence[int]]
    names: Mapping[str, Sequence[str]] = field(repr=False)
    pictures: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    copies: tuple[Alike, ...] = ()
    near: tuple[Alike, ...] = ()
    threshold: float = 1.0
    doubts: tuple[Doubt, ...] = ()
    judged: int = 0
    notes: tuple[str, ...] = ()

    def groups(self, *parts: str) -> list[int]:
        """A number for each image of some parts, one after the other: the same for those that are copies or nearly so.

        As scikit-learn's splitters take them: a fold never holds a picture whose copy is learned from.

        Args:
            parts: e.g. ``"train", "val"``; all where none is named.

        >>> import adaptkit as ak
        >>> found = ak.look("toy", backbone="toy:0")
        >>> len(found.groups("train")) == found.sizes["train"]
        True
        """
        names = parts or tuple(self.sizes)
        starts = dict(zip(names, accumulate((self.sizes[name] for name in names), initial=0), strict=False))
        group = list(range(sum(self.sizes[name] for name in names)))

        def root(i: int) -> int:
            while group[i] != i:
                i = group[i]
            return i

        for alike in (*self.copies, *self.near):
            rows = sorted(root(starts[part] + i) for part, i in alike.places if part in starts)
            for row in rows[1:]:
                group[root(row)] = root(rows[0])
        return [root(i) for i in range(len(group))]
