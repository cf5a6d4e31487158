"""Defects drawn on textures and on a drawing, with masks: anomalies without a download. ``defects:fabric``.

Of ``fabric``, ``wood``, ``tile`` and ``button``; without a name, fabric. A number behind it draws others:
``defects:wood/7``. An image is 96 pixels wide; a defect is a scratch, a stain or a hole, of which the mask is known to
the pixel. Of each object, 40 normal and 40 anomalous images are for testing, 32 and 32 for training, 12 and 12 for
validation. Unlike the field's datasets, training images have defects, too: who learns from normal ones passes over
these.

Source: drawn by a formula.
Deviations: a dataset of this kit's own, without published numbers.
"""

import hashlib
import re

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from adaptkit import Splits, hookimpl
from adaptkit.features.sources import Drawn
from adaptkit.io.errors import must_be

SIDE = 96
COUNTS = {"train": 32, "val": 12, "test": 40}  # normal images, and as many anomalous ones
Y, X = np.mgrid[:SIDE, :SIDE] / SIDE


def fabric(rng):
    """Threads over and under each other."""
    fine, shift = 14 * 2 * np.pi, rng.uniform(0, 2 * np.pi, 2)
    weave = np.sin(fine * X + shift[0]) * np.sin(fine * Y + shift[1])
    return np.stack([0.35 + 0.15 * weave, 0.40 + 0.15 * weave, 0.55 + 0.15 * weave], -1)


def wood(rng):
    """Rings, cut along the stem."""
    bend = 0.08 * np.sin(2 * np.pi * (Y + rng.uniform(0, 1)))
    rings = np.sin(2 * np.pi * 9 * (X + bend + rng.uniform(0, 1)))
    return np.stack([0.60 + 0.12 * rings, 0.42 + 0.10 * rings, 0.25 + 0.07 * rings], -1)


def tile(rng):
    """Grains of two sizes."""
    small, large = (rng.random((n, n)) for n in (48, 12))
    grains = (np.asarray(Image.fromarray(g).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for g in (small, large))
    return (0.55 + 0.18 * (sum(grains) - 1))[..., None] * np.array([1.0, 0.98, 0.92])


def button(rng):
    """A drawing: a round button with four holes."""
    sheet = Image.new("RGB", (SIDE, SIDE), (235, 232, 225))
    draw, (dx, dy), turn = ImageDraw.Draw(sheet), rng.integers(-3, 4, 2), rng.uniform(0, np.pi / 2)
    for radius, colour in ((36, (60, 90, 150)), (29, (85, 120, 185))):
        draw.ellipse((48 + dx - radius, 48 + dy - radius, 48 + dx + radius, 48 + dy + radius), fill=colour)
    for k in range(4):
        x, y = 48 + dx + 11 * np.cos(turn + k * np.pi / 2), 48 + dy + 11 * np.sin(turn + k * np.pi / 2)
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=(235, 232, 225))
    return np.asarray(sheet) / 255


OBJECTS = {each.__name__: each for each in (fabric, wood, tile, button)}


def defect(rng):
    """A mask, ``(96, 96)`` booleans, and the colour of what is there."""
    sheet, kind = Image.new("L", (SIDE, SIDE)), rng.integers(3)
    draw, middle = ImageDraw.Draw(sheet), rng.uniform(0.3, 0.7, 2) * SIDE
    if kind == 0:  # a scratch
        turn, half = rng.uniform(0, np.pi), rng.uniform(14, 26)
        ends = [tuple(middle + sign * half * np.array([np.cos(turn), np.sin(turn)])) for sign in (-1, 1)]
        draw.line(ends, fill=255, width=int(rng.integers(3, 6)))
        colour = np.full(3, rng.choice([0.05, 0.95]))
    else:  # a stain, or a hole
        reach = rng.uniform(7, 15, 2)
        draw.ellipse((*(middle - reach), *(middle + reach)), fill=255)
        colour = rng.uniform(0.2, 0.9, 3) if kind == 1 else np.full(3, 0.04)
    return np.asarray(sheet) > 0, colour


class Defects(Drawn):
    """Images of an object, every second one with a defect, where its mask is 1."""

    def __init__(self, thing, part, seed):
        self.name, self.thing, self.seed = part, thing, seed
        self.labels = [0] * (2 * COUNTS[part])
        self.targets = [self.drawn(i)[1].astype(np.uint8) for i in range(len(self))]

    def __len__(self):
        return len(self.labels)

    def key(self, i):
        return hashlib.sha256(f"defects 1 {self.thing} {self.name} {self.seed} {i}".encode()).hexdigest()

    def drawn(self, i):
        """The image, ``(96, 96, 3)`` between 0 and 1, and its mask."""
        rng = np.random.default_rng(int(self.key(i)[:16], 16))
        whole = OBJECTS[self.thing](rng) + rng.normal(0, 0.02, (SIDE, SIDE, 3))
        if i % 2 == 0:
            return whole, np.zeros((SIDE, SIDE), dtype=bool)
        mask, colour = defect(rng)
        soft = np.asarray(Image.fromarray(255 * mask.astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.7))) / 255
        share = 0.85 * soft[..., None]
        return (1 - share) * whole + share * colour, mask

    def image(self, i):
        return Image.fromarray((255 * self.drawn(i)[0].clip(0, 1)).astype(np.uint8))


def load(place=""):
    name, _, seed = place.partition("/")
    name = name or "fabric"
    if name not in OBJECTS:
        raise ValueError(must_be("defects:", OBJECTS, name))
    if not re.fullmatch(r"\d{0,9}", seed):
        raise ValueError(f"defects:{name}/ must be followed by a whole number; got {seed!r}")
    parts = {part: Defects(name, part, int(seed or 0)) for part in COUNTS}
    called = f"defects:{name}" + (f"/{int(seed)}" if seed else "")
    return Splits(called, (name,), **parts, source="drawn by a formula", kind="maps")


@hookimpl
def datasets():
    return {"defects": load}
