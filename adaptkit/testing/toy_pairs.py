"""Toy queries and galleries: a text, perhaps with an image, finds images, or short sequences of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from PIL import Image

from adaptkit.features.captions import Captions
from adaptkit.features.composites import Composite
from adaptkit.features.datasets import Splits
from adaptkit.features.items import Source
from adaptkit.features.sources import Drawn
from adaptkit.testing.toy import CLASSES, ToyImages

GALLERY, QUERIES, PAIRS = 20, 40, 60


class ToySequences:
    """`n` sequences of one to four images of one class. Sequence `i` has label ``i % C``."""

    def __init__(self, name: str, n: int) -> None:
        self.name, self.frames = name, [ToyImages(f"{name} frame {k}", n) for k in range(4)]
        self.labels = self.frames[0].labels

    def __len__(self) -> int:
        return len(self.labels)

    def key(self, i: int) -> str:
        """Digest of the frames."""
        return hashlib.sha256("".join(frame.key(i) for frame in self._of(i)).encode()).hexdigest()

    def open(self, i: int) -> tuple[str, list[Image.Image]]:
        """The key and the frames."""
        return self.key(i), [frame.image(i) for frame in self._of(i)]

    def _of(self, i: int) -> Sequence[Drawn]:
        return self.frames[: 1 + i % 3 + (i % 7 == 0)]


def toy_pairs() -> Splits:
    """A text that names a class, beside an image of another one, finds the images of the class it names."""
    return found_by_text("toy-pairs", ToyImages("gallery", GALLERY), ToyImages("paired", PAIRS))


def toy_sequences() -> Splits:
    """A text that names a class finds the sequences that show it."""
    return found_by_text("toy-sequences", ToySequences("sequences", GALLERY), ToySequences("paired sequences", PAIRS))


def found_by_text(name: str, gallery: Source, paired: Source) -> Splits:
    """A toy dataset whose queries name the class of what is sought."""
    shown = ToyImages("gallery", GALLERY)  # where there are images, those of queries are some that are searched
    seen = {c: [int(label == c) for label in gallery.labels] for c in range(len(CLASSES))}
    asked, learned = [i % len(CLASSES) for i in range(QUERIES)], list(paired.labels)
    queries = Composite(f"{name} queries", named_beside(asked, shown), targets=[seen[c] for c in asked])
    parts = {**named_beside(learned, ToyImages("reference", PAIRS)), "item": (paired, range(len(paired)))}
    names = tuple(f"{CLASSES[c]} {i}" for i, c in enumerate(gallery.labels))
    train = Composite(f"{name} pairs", parts, labels=learned)
    return Splits(name, names, train, queries, kind="ranking", gallery=gallery, source="drawn by a formula")


def toy_alike() -> Splits:
    """An image finds the images of its class."""
    gallery, asked, paired = ToyImages("gallery", GALLERY), ToyImages("asked", QUERIES), ToyImages("paired", PAIRS)
    targets = [[int(label == own) for label in gallery.labels] for own in asked.labels]
    queries = Composite("toy-alike queries", {"image": (asked, range(QUERIES))}, targets=targets)
    parts = {"image": (ToyImages("reference", PAIRS), range(PAIRS)), "item": (paired, range(PAIRS))}
    names = tuple(f"{CLASSES[c]} {i}" for i, c in enumerate(gallery.labels))
    train = Composite("toy-alike pairs", parts, labels=list(paired.labels))
    return Splits("toy-alike", names, train, queries, kind="ranking", gallery=gallery, source="drawn by a formula")


def named_beside(classes: Sequence[int], images: Source) -> dict[str, tuple[Source, Sequence[int]]]:
    """For each class a text that names it, and an image of the class behind it."""
    texts = Captions([f"a photo of a {name}." for name in CLASSES])
    after = [(i + 1) % len(images) for i in range(len(classes))]
    return {"text": (texts, classes), "image": (images, after)}
