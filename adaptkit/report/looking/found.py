"""What was found of a dataset by looking at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from adaptkit.io.errors import must_be
from adaptkit.io.safe import line
from adaptkit.report.looking.near import linked

Place = tuple[str, int]  # a part, and the number of an image in it
LISTED = 10  # of a list, in lines
LOOK_FIELDS = ("what", "part", "image", "group", "label", "likely", "value")


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

    @property
    def parts(self) -> set[str]:
        """Where they lie."""
        return {part for part, _ in self.places}


def telling_first(groups: Sequence[Alike]) -> list[Alike]:
    """Groups across parts first, then those under several labels: these spoil answers."""
    return sorted(groups, key=lambda alike: (len(alike.parts) == 1, len(alike.labels) < 2))


def left_out_row(told: str) -> dict[str, str]:
    """What a row says of an image that the dataset left out, ``"'cat/1.png': it is empty"``.

    >>> left_out_row("'cat/1.png': it is empty")
    {'what': 'unread', 'image': 'cat/1.png', 'value': 'it is empty'}
    """
    quote, rest = told[:1], told[1:]
    name, _, why = rest.partition(f"{quote}: ") if quote in ("'", '"') else (told, "", "")
    return {"what": "unread", "image": name, "value": why}


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
        left_out: images that the dataset has left out as they cannot be read, with the reason.
        unread: images of the dataset that cannot be read, with the reason.
        copies: images of the same pixels.
        near: images that nearly show the same, by their features; copies are not repeated.
        threshold: the cosine from which on two images count as nearly the same; 1 where no features were read.
        doubts: likely wrong labels, the likeliest first.
        judged: images whose labels were held against the others'.
        agreed: share of these labels that the classifier which judged them says too, from 0 to 1.
        notes: what could not be told, and why.
    """

    dataset: str
    classnames: tuple[str, ...]
    sizes: Mapping[str, int]
    counts: Mapping[str, Sequence[int]]
    names: Mapping[str, Sequence[str]] = field(repr=False)
    pictures: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    unread: tuple[tuple[Place, str], ...] = ()
    copies: tuple[Alike, ...] = ()
    near: tuple[Alike, ...] = ()
    threshold: float = 1.0
    doubts: tuple[Doubt, ...] = ()
    judged: int = 0
    agreed: float = 0.0
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
        if odd := [name for name in names if name not in self.sizes]:
            raise ValueError(must_be("a part", self.sizes, odd[0]))
        *starts, count = accumulate((self.sizes[name] for name in names), initial=0)
        start = dict(zip(names, starts, strict=True))
        pairs = list[tuple[int, int]]()
        for alike in (*self.copies, *self.near):
            rows = [start[part] + i for part, i in alike.places if part in start]
            pairs += pairwise(rows)
        return linked(count, pairs)

    def lines(self) -> list[str]:
        """What was found, for a terminal; of long lists the beginning."""
        sizes = ", ".join(f"{count:,} {part}" for part, count in self.sizes.items())
        lines = [f"{self.dataset}: {len(self.classnames):,} classes, {sum(self.sizes.values()):,} images: {sizes}"]
        lines += [*self._of_classes(), *self.pictures]
        if self.unread:
            lines += self._listed("cannot be read", [f"{self.where(place)}: {why}" for place, why in self.unread])
        lines += [f"left out: {text}" for text in self.left_out[:LISTED]]
        lines += self._of_alike("of the same pixels", self.copies)
        if self.threshold < 1:
            what = f"that are nearly the same (cosine {self.threshold:.3f} or more, and alike at 12 x 12 pixels)"
            lines += self._of_alike(what, self.near)
        if self.judged:
            likely = [self._doubt(doubt) for doubt in self.doubts]
            by = f"judged by a classifier that is right on {self.agreed:.0%} of them"
            lines += self._listed(f"of {self.judged:,} labels likely wrong, {by}", likely)
        return [line(text) for text in (*lines, *self.notes)]

    def rows(self) -> list[dict[str, object]]:
        """What was found, image by image, as rows of one table.

        >>> import adaptkit as ak
        >>> found = ak.look("digits", backbone="")
        >>> {row["what"] for row in found.rows()} <= {"unread", "copy", "near", "label"}
        True
        """
        empty: dict[str, object] = dict.fromkeys(LOOK_FIELDS, "")
        out = [empty | left_out_row(told) for told in self.left_out]
        out += [self._row("unread", place, value=why) for place, why in self.unread]
        for what, all_alike in (("copy", self.copies), ("near", self.near)):
            for group, alike in enumerate(all_alike, 1):
                out += [self._row(what, place, group=group, value=alike.cosine) for place in alike.places]
        for doubt in self.doubts:
            names = {"label": self.classnames[doubt.label], "likely": self.classnames[doubt.likely]}
            out.append(self._row("label", doubt.place, value=doubt.margin, **names))
        return out

    def where(self, place: Place) -> str:
        """An image as its part and its place in it."""
        part, i = place
        return f"{part}: {self.names[part][i]}"

    def _row(self, what: str, place: Place, **more: object) -> dict[str, object]:
        part, i = place
        empty = dict.fromkeys(LOOK_FIELDS, "")
        return empty | {"what": what, "part": part, "image": self.names[part][i]} | more

    def _doubt(self, doubt: Doubt) -> str:
        label, likely = self.classnames[doubt.label], self.classnames[doubt.likely]
        return f"{self.where(doubt.place)} is labelled {label!r} and looks like {likely!r}, margin {doubt.margin:.2f}"

    def _of_classes(self) -> list[str]:
        """The smallest and the largest class of each part whose labels were read."""
        lines = []
        for part, counts in self.counts.items():
            few, many = min(range(len(counts)), key=counts.__getitem__), max(range(len(counts)), key=counts.__getitem__)
            least, most = (f"{self.classnames[c]!r} with {counts[c]:,}" for c in (few, many))
            even = counts[few] == counts[many]
            each = f"{counts[few]:,} image{'s' * (counts[few] != 1)} of each class"
            lines.append(f"{part}: {each}" if even else f"{part}: from {least} to {most}")
        return lines

    def _of_alike(self, what: str, groups: Sequence[Alike]) -> list[str]:
        """Groups, the most telling first."""
        across = sum(len(alike.parts) > 1 for alike in groups)
        odd = sum(len(alike.labels) > 1 for alike in groups)
        told = f" ({across:,} of them across parts, {odd:,} under several labels)" * bool(groups)
        texts = []
        for alike in telling_first(groups):
            names = ", ".join(repr(self.classnames[c]) for c in alike.labels)
            under = f", labelled {names}" if len(alike.labels) > 1 else ""
            texts.append(" = ".join(map(self.where, alike.places[:LISTED])) + under)
        return self._listed(f"group{'s' * (len(groups) != 1)} of images {what}{told}", texts)

    def _listed(self, what: str, texts: Sequence[str]) -> list[str]:
        rest = [f"  and {len(texts) - LISTED:,} more"] * (len(texts) > LISTED)
        return [f"{len(texts):,} {what}", *(f"  {text}" for text in texts[:LISTED]), *rest]
