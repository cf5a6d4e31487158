"""Pictures with classes, and perhaps the parts that their author put them in, as a dataset.

What cannot be read is left out first, so that everything else is as if it were not there. Which part an image falls
into, where nobody said, depends on what it shows and on the images of its class, and on nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from adaptkit.features.datasets import TOLD, Splits
from adaptkit.features.items import Source
from adaptkit.features.looking import sound_pictures
from adaptkit.features.split_files import PARTS
from adaptkit.io.errors import must_be
from adaptkit.io.home import home

NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What people call parts, in small letters, with what they are called here."""
SHARED = "half of each class train, a fifth val, the rest test, by sha256"
FROM_TRAIN = "val is a fifth of each class of train, by sha256"


class CannotSplitError(ValueError):
    """Images that cannot be parted into those to learn from and those to be judged by."""


class Pickable(Source, Protocol):
    """A source of which some items can be taken."""

    def some(self, rows: Sequence[int], **changes: Any) -> Pickable:  # noqa: ANN401 (name, labels, targets)
        """Some of the items, in this order, with another name, labels or targets."""
        ...


@dataclass(frozen=True)
class Found:
    """Pictures as they were found, before they are parted and numbered.

    Attributes:
        name: of the dataset.
        pictures: all of them.
        classes: what each one is: its class, or several of them where `several`.
        parts: the part of each; "" where its author put it in none.
        several: whether an image may be of several classes.
        notes: what there is to know, in lines.
    """

    name: str
    pictures: Pickable
    classes: Sequence[Any]
    parts: Sequence[str]
    several: bool = False
    notes: tuple[str, ...] = ()
    keys: Sequence[str] = field(default=())

    def keep(self, rows: Iterable[int]) -> Self:
        """Some of the pictures."""
        rows = list(rows)
        kept: dict[str, Any] = {name: [getattr(self, name)[i] for i in rows] for name in ("classes", "parts", "keys")}
        return replace(self, pictures=self.pictures.some(rows), **kept)

    def of(self, i: int) -> tuple[Any, ...]:
        """The classes of picture `i`."""
        return tuple(self.classes[i]) if self.several else (self.classes[i],)

    def all(self, part: str = "") -> set[Any]:
        """The classes that occur, in a part or anywhere."""
        return {c for i, own in enumerate(self.parts) if part in ("", own) for c in self.of(i)}


def arrange(
    found: Found,
    *,
    names: Sequence[str] = (),
    title: Callable[[Any], str] = str,
    answered: bool = False,
    whole: bool = False,
    val: bool = False,
    alike: bool = True,
    source: str = "your own images",
) -> Splits:
    """A dataset of the pictures that can be read.

    Args:
        found: the pictures.
        names: of classes that are numbers from 0 on; by default classes are sorted.
        title: a class as prompts name it.
        answered: nothing is learned from them, and what is in no part is all in test.
        whole: what is in no part is all in train.
        val: part off images to choose by where there are none.
        alike: refuse parts whose classes differ.
        source: where they come from.

    Raises:
        ValueError: when none can be read, or there is none of a class in some part.
    """
    found, left_out = without_bad(found)
    found, parted = sorted_out(found, answered, val, alike, whole)
    order = range(len(names)) if names else sorted(found.all())
    train, val_images, test = (part_of(found, part, order) for part in PARTS)
    return Splits(
        found.name,
        *(tuple(names) or tuple(map(title, order)), train, test, val_images if len(val_images) else None),
        source=source,
        kind="multi-label" if found.several else "classification",
        parted=parted,
        left_out=left_out,
        notes=(*found.notes, *in_both(found)),
        labelnames=tuple(names or map(str, order)),
    )


def part_of(found: Found, part: str, order: Sequence[Any]) -> Source:
    """The pictures of a part, labelled by the places of their classes in an order."""
    rows, number = [i for i, own in enumerate(found.parts) if own == part], {c: i for i, c in enumerate(order)}
    name = f"{found.name} {part}"
    if found.several:
        return found.pictures.some(
            rows, name=name, labels=[], targets=[[int(c in found.of(i)) for c in order] for i in rows]
        )
    return found.pictures.some(rows, name=name, labels=[number[found.classes[i]] for i in rows])


def without_bad(found: Found) -> tuple[Found, tuple[str, ...]]:
    """The pictures that can be read, with their keys; and the others, with the reasons."""
    keys, bad = sound_pictures(found.pictures, home() / "sound")
    good = replace(found, keys=keys).keep(i for i in range(len(keys)) if i not in bad)
    for part in ("", "train", "test"):
        if gone := sorted(found.all(part) - good.all(part)):
            rows = [i for i in bad if gone[0] in found.of(i) and part in ("", found.parts[i])]
            more, where = f" and {len(gone) - 1} other classes" * (len(gone) > 1), f" in {part}" * bool(part)
            raise ValueError(
                f"every class of {found.name} must have an image that can be read{where}; got none of "
                f"{len(rows)} for {gone[0]!r}{more}: {'; '.join([bad[i] for i in rows][:TOLD])}"
            )
    return good, tuple(bad.values())


def sorted_out(found: Found, answered: bool, val: bool, alike: bool, whole: bool = False) -> tuple[Found, str]:
    """The pictures with a part each, and how they were parted where their author had not."""
    parted, given = "", {*found.parts}
    if answered:
        only = next((part for part in ("test", "val") if part in given), None)
        found = found.keep(i for i, part in enumerate(found.parts) if only in (None, part))
        return replace(found, parts=["test"] * len(found.parts)), parted
    if whole and given <= {"", "train"}:
        return replace(found, parts=["train"] * len(found.parts)), parted
    if given <= {"", "train"}:
        found, parted = replace(found, parts=share_out(found)), SHARED
    elif "test" not in given:
        found = replace(found, parts=[part.replace("val", "test") for part in found.parts])
    elif val and "val" not in given and "train" in given:
        found, parted = replace(found, parts=hold_back(found)), FROM_TRAIN
    of = {part: found.all(part) for part in PARTS}
    for part in ("train", "test"):
        if part not in found.parts:
            raise ValueError(f"{found.name} must have images for train, and for test or val; got none for {part}")
    odd = sorted(of["train"] ^ of["test"] | of["val"] - of["train"])
    if odd and alike and not found.several:
        said = ", ".join(map(repr, odd[:10])) + f" and {len(odd) - 10} more" * (len(odd) > 10)
        raise ValueError(f"{found.name} must have the same classes in every split; got only in some: {said}")
    return found, parted


def share_out(found: Found) -> list[str]:
    """Half of each class for train, a fifth for val, the rest for test."""
    split: dict[int, str] = {}
    for c, rows in by_classes(found).items():
        rank = ranks(found, rows)
        if len(rank) < 2:
            what = "a dataset" if found.several else "a class"
            got = "fewer" if found.several else f"fewer of {c!r}"
            raise CannotSplitError(f"{what} must have two different images to be split; got {got}")
        train, val = (len(rank) + 1) // 2, len(rank) // 5
        for i in rows:
            own = rank[found.keys[i]]
            split[i] = "train" if own < train else "val" if own < train + val else "test"
    return [split[i] for i in range(len(found.keys))]


def hold_back(found: Found) -> list[str]:
    """The parts, with a fifth of each class of train in val, of two or more at least one."""
    split = dict(enumerate(found.parts))
    for rows in by_classes(found, "train").values():
        rank = ranks(found, rows)
        held = max(len(rank) // 5, int(len(rank) > 1))
        split |= {i: "val" for i in rows if rank[found.keys[i]] >= len(rank) - held}
    return [split[i] for i in range(len(found.keys))]


def by_classes(found: Found, part: str = "") -> dict[Any, list[int]]:
    """Pictures of a part or of all, class by class; together where they may be of several."""
    rows = defaultdict[Any, list[int]](list)
    for i, own in enumerate(found.parts):
        if part in ("", own):
            rows["" if found.several else found.classes[i]].append(i)
    return rows


def ranks(found: Found, rows: Iterable[int]) -> dict[str, int]:
    """The place of each key among those of some pictures; equal pictures have one."""
    return {key: place for place, key in enumerate(sorted({found.keys[i] for i in rows}))}


def in_both(found: Found) -> list[str]:
    """A line about pictures that are learned from and judged by."""
    of = defaultdict[str, set[str]](set)
    for key, part in zip(found.keys, found.parts, strict=True):
        of[part].add(key)
    twice = len(of["train"] & of["test"])
    return [f"{twice:,} images are in train and in test"] * bool(twice)


def part_named(name: str, where: str) -> str:
    """The part that a name stands for.

    Raises:
        ValueError: when it stands for none.
    """
    if name.strip().lower() not in NAMES:
        raise ValueError(must_be(where, PARTS, name))
    return NAMES[name.strip().lower()]
