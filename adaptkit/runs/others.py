"""Other datasets than the one that is learned: those of its domains, and those with classes of their own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from adaptkit.features.datasets import Relabelled, Splits, some_of
from adaptkit.features.items import Source
from adaptkit.io.errors import must_be
from adaptkit.io.text import composed
from adaptkit.runs import plugins
from adaptkit.runs.loading import pick_dataset


class Others:
    """Datasets beside one's own, each read once.

    Attributes:
        own: the dataset that is learned.
        home: where they keep what they keep.
        notes: what there is to know of it and of the others, in lines.
    """

    def __init__(self, own: Splits, home: Path | None = None) -> None:
        self.own, self.home, self.notes = own, home, dict.fromkeys(own.said())
        self._read: dict[tuple[str, bool], Splits] = {}

    @property
    def left_out(self) -> int:
        """Images that cannot be read, which nothing sees."""
        return len({bad for splits in (self.own, *self._read.values()) for bad in splits.left_out})

    def lines(self) -> list[str]:
        """The notes, and how the dataset was parted where its author did not."""
        parted = f"{self.own.name}: parted here: {self.own.parted}"
        return [parted] * bool(self.own.parted) + [*self.notes]

    def read(self, name: str, answered: bool = False) -> Splits:
        """Another dataset; perhaps as one that is only answered."""
        if name.partition(":")[0] not in plugins.table("datasets"):
            known = [*self.own.domains, *plugins.table("datasets")]
            raise ValueError(must_be(f"a domain of {self.own.name}, or a dataset,", known, name))
        if (name, answered) not in self._read:
            self._read[name, answered] = found = pick_dataset(name, self.home, answered=answered)
            self.notes |= dict.fromkeys(found.said())
        return self._read[name, answered]

    @cached_property
    def _studied(self) -> frozenset[str]:
        """The keys of one's own pictures to learn from or to choose by; they were read when these were found.

        Of the field's datasets none: their authors parted them, and to read all images only for this takes long.
        """
        parts = (self.own.train, self.own.val) if ":" in self.own.name else ()
        return frozenset(part.key(i) for part in parts if part is not None for i in range(len(part)))

    def unseen(self, source: Source, called: str) -> Source:
        """A source without the images that are among those to learn from; a line tells how many they are.

        Raises:
            ValueError: when none remains.
        """
        studied, count = self._studied, len(source)
        rows = [i for i in range(count) if source.key(i) not in studied] if studied else range(count)
        if len(rows) == count:
            return source
        if not rows:
            what = f"images that {self.own.name} does not learn from"
            raise ValueError(f"{called} must have {what}; got {count:,}, all of which are among those to learn from")
        gone = f"left out {count - len(rows):,} of {count:,} images, which are among those to learn from"
        self.notes[f"{called}: {gone}"] = None
        return some_of(source, rows)

    def domain(self, name: str, must: bool, learned: Collection[int], called: str = "") -> Source | None:
        """Images of one's own classes; ``None`` where a dataset has other ones, unless they `must` be the same.

        Args:
            name: of the domain, or of a dataset.
            must: as in `as_domain`.
            learned: the classes that are.
            called: what recipes call it, if not by its name.
        """
        if name in self.own.domains:
            return self.own.domains[name]
        other = self.read(name, answered=True)
        if as_domain(self.own, other, must, learned)[0] is None:
            return None
        source, notes = as_domain(self.own, replace(other, test=self.unseen(other.test, called or name)), must, learned)
        self.notes |= dict.fromkeys(notes)
        return source

    def elsewhere(self, name: str) -> Splits:
        """A dataset with classes of its own."""
        try:
            splits = self.read(name)
        except ValueError:  # there is nothing in it to learn from, which is not asked for either
            splits = self.read(name, answered=True)
        if splits.kind != self.own.kind:
            raise ValueError(f"domains must ask for {self.own.kind}; got {name!r}, which asks for {splits.kind}")
        if splits.kind == "classification" and len(splits.classnames) < 2:
            raise ValueError(f"a domain with classes of its own must have at least 2; got {name!r} with one")
        return replace(splits, test=self.unseen(splits.test, name))

    def outside(self, name: str, called: str = "") -> Source:
        """Images whose classes do not matter."""
        return self.own.domains.get(name) or self.unseen(self.read(name, answered=True).test, called or name)


def as_domain(own: Splits, other: Splits, must: bool, learned: Collection[int]) -> tuple[Relabelled | None, list[str]]:
    """The test images of another dataset, labelled by the names of one's own classes.

    Args:
        own: the dataset whose classes are learned.
        other: the dataset that is answered.
        must: somebody said that its classes are those of one's own; it may have more. Else all must be among them.
        learned: the classes that are; of two at least there must be images, as there is nothing to tell apart else.

    Returns:
        The images, ``None`` where the other dataset has classes of its own; and what there is to know, in lines.

    Raises:
        ValueError: when the classes must be the same and cannot be found by their names, or only one occurs.
    """
    found = matched(own.labelnames, other.labelnames)
    single = own.kind == other.kind == "classification"
    if not single or not found or ({*found} <= {None} if must else None in found):
        if not must:
            return None, []
        what = "one class for each image" if not single else "class names that differ" if not found else "its classes"
        raise ValueError(
            f"a domain of {own.name} with its classes must have {what}; got {other.name} with "
            f"{in_line(other.labelnames)}; list it without a name, ['{other.name}'], if it has others"
        )
    rows = [(i, c) for i, y in enumerate(other.test.labels) if (c := found[y]) is not None]
    labels, notes = [c for _, c in rows], list[str]()
    if len(shared := {*labels} & {*learned}) < 2:
        got = f"images of {in_line([own.labelnames[c] for c in shared]) or 'none'}"
        raise ValueError(f"a domain must have images of 2 of the classes that are learned; got {other.name} with {got}")
    if more := [name for name, c in zip(other.labelnames, found, strict=True) if c is None]:
        gone = len(other.test) - len(rows)
        notes.append(f"{other.name}: left out {gone:,} images of classes that {own.name} has not: {in_line(more)}")
    if absent := [name for c, name in enumerate(own.labelnames) if c not in {*labels}]:
        count = f"{len(absent)} of the {len(own.classnames)} classes"
        notes.append(f"{other.name}: has no image of {count} of {own.name}: {in_line(absent)}")
    occur = sorted({*labels}) if absent else None
    return Relabelled(other.test, [i for i, _ in rows], labels, occur, other.test.name), notes


def matched(own: Sequence[str], others: Sequence[str]) -> list[int | None]:
    """For each of the other class names the number of one's own, ``None`` where there is none; [] if names repeat.

    Spellings may differ in case, and in ``_`` or ``-`` for spaces, unless that is all by which some classes differ.
    """
    for spelled in (loosely, str):
        number = {spelled(name): c for c, name in enumerate(own)}
        if len(number) == len(own) and len({*map(spelled, others)}) == len(others):
            return [number.get(spelled(name)) for name in others]
    return []


def loosely(name: str) -> str:
    """A class name without what spellings differ in."""
    return " ".join(composed(composed(name).replace("_", " ").replace("-", " ").casefold()).split())


def in_line(names: Sequence[str], most: int = 10) -> str:
    """Some names, in a line."""
    return ", ".join(map(repr, names[:most])) + f" and {len(names) - most} more" * (len(names) > most)
