"""Toy patterns with holes in them, and masks of these: for methods that answer with maps."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

from adaptkit.features.datasets import Splits
from adaptkit.features.sources import Drawn
from adaptkit.testing.toy import CLASSES, SIDE, ToyImages, pattern

OBJECTS = 2  # of the toy's classes


class ToyDefects(Drawn):
    """`n` images of two patterns under noise; every second pair has a square of a third one, where its mask is 1."""

    def __init__(self, name: str, n: int) -> None:
        self.name, self.plain = name, ToyImages(f"{name} defects", n)
        self.labels = [i % OBJECTS for i in range(n)]
        self.targets = [self.mask(i) for i in range(n)]

    def __len__(self) -> int:
        return len(self.labels)

    def key(self, i: int) -> str:
        """The image is a function of this."""
        return hashlib.sha256(f"{self.plain.key(i)} {self.labels[i]} defects".encode()).hexdigest()

    def mask(self, i: int) -> np.ndarray:
        """Where image ``i`` has a hole, ``(32, 32)`` of 0 and 1."""
        mask = np.zeros((SIDE, SIDE), dtype=np.int64)
        if i // OBJECTS % 2:
            top, left = np.random.default_rng(i).integers(0, SIDE // 8 - 1, 2) * 8
            mask[top : top + 16, left : left + 16] = 1
        return mask

    def image(self, i: int) -> Image.Image:
        """The pattern, the hole and noise that is seeded by the key."""
        rng = np.random.default_rng(int(self.key(i)[:16], 16))
        whole = np.where(self.targets[i][..., None] == 1, pattern(OBJECTS), pattern(self.labels[i]))
        return Image.fromarray((255 * (whole + 0.05 * rng.standard_normal(whole.shape)).clip(0, 1)).astype(np.uint8))


def toy_defects() -> Splits:
    """Patterns to learn from, some with holes, and to be judged by."""
    train, val, test = ToyDefects("train", 40), ToyDefects("val", 20), ToyDefects("test", 40)
    return Splits("toy-defects", CLASSES[:OBJECTS], train, test, val, source="drawn by a formula", kind="maps")
