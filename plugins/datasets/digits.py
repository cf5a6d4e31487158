"""Handwritten digits, 8 x 8 pixels: small real images that come with scikit-learn, unlike any photo or drawing.

Of each class, in the order of the file, the first 40 are for training, the next 20 for validation, the others for
testing. It serves where another dataset is asked for: as a target of cross-dataset recipes, and as far images.

Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, CC BY 4.0.
Deviations: a split of this kit's own, without published numbers.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from adaptkit import Splits, hookimpl
from adaptkit.features.sources import Drawn
from adaptkit.io.files import digest

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PARTS = {"train": slice(0, 40), "val": slice(40, 60), "test": slice(60, None)}


@dataclass(frozen=True, eq=False)
class Digits(Drawn):
    """Labelled grey images, ``(N, 8, 8)`` bytes."""

    name: str
    pixels: np.ndarray
    labels: tuple[int, ...]

    def __len__(self):
        return len(self.labels)

    def key(self, i):
        return digest(self.pixels[i].tobytes())

    def image(self, i):
        return Image.fromarray(self.pixels[i]).resize((224, 224), Image.Resampling.NEAREST).convert("RGB")


def digits(place=""):
    from sklearn.datasets import load_digits

    held = load_digits()
    pixels = (held.images * 255 / 16).round().astype(np.uint8)
    own = [np.flatnonzero(held.target == c) for c in range(10)]
    sets = {}
    for part, rows in PARTS.items():
        index = np.concatenate([of_class[rows] for of_class in own])
        sets[part] = Digits(f"digits {part}", pixels[index], tuple(held.target[index].tolist()))
    about = "Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, with scikit-learn; CC BY 4.0"
    return Splits("digits", NAMES, **sets, templates=('a photo of the number: "{}".',), source=about)


@hookimpl
def datasets():
    return {"digits": digits}
