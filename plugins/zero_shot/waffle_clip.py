"""WaffleCLIP: descriptors made of random words and random characters do as well as those of a language model.

Source: Roth et al., Waffling around for Performance: Visual Classification with Random Words and Broad Concepts,
arXiv:2306.07282.
Deviations: the words are a list of our own, words.json; without a `file` of descriptors the characters are the small
letters, with one those that occur in it. The release draws for every class and keeps what one class got, puts the other
names into its finished sentences, also where they match by chance, and joins a word that begins with a by "which is";
``as_released=True`` does so. The paper averages accuracy over seven draws; here a seed is a draw.
Answers are mean similarities, as in DCLIP.
"""

import json
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from adaptkit import ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Size
from adaptkit.runs.plugins import pick

WORDS = Path(__file__).with_name("words.json")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class WaffleCLIP(ZeroShot):
    """Zero-shot with random descriptors, the same for every class."""

    exempt: ClassVar = {"beats_chance": "the toy's text tower knows one sentence for a class; random words drown it"}

    file: str = ""  # descriptors by class, as the prompts `llm` read them
    count: Size = 15  # random phrases of words, and as many of characters
    mode: Literal["waffle", "waffle-and-descriptors", "random-descriptors"] = "waffle"
    before: str = "A photo of a "  # what stands before the class's name; a broad concept may
    after: str = "."
    budget: Size = 15  # in ``random-descriptors``, times as many for a class as classes have on average
    as_released: bool = False

    def fit(self, task):
        super().fit(task)
        lists = None
        if self.file:
            lists = pick("prompts", "llm")(task.classnames, None, file=self.file, form="subclasses", template="{}")
        words, seed = json.loads(WORDS.read_text(encoding="utf-8")), int(torch.randint(2**31, ()))
        sentences = self.write(task.classnames, lists, words, np.random.RandomState(seed))
        rows = unit(task.encode([s for own in sentences for s in own])).to(self.text)
        self.text = nn.Buffer(torch.stack([own.mean(0) for own in rows.split([len(own) for own in sentences])]))

    def write(self, classnames, lists, words, rng):
        """Sentences for each class; `lists` are its descriptors, which ``waffle`` can do without."""
        if self.mode != "waffle" and not lists:
            raise ValueError(f"mode must be 'waffle' without a file of descriptors; got {self.mode!r}")
        names = [name.replace("_", " ") for name in classnames]
        every = [d for own in lists or () for d in own]
        if self.mode == "random-descriptors":
            size = min(len(every), -(-len(every) // len(names)) * self.budget)
            return [[self.sentence(name, d) for d in rng.choice(every, size, replace=False)] for name in names]
        count = self.count if self.mode == "waffle" else int(2 / 3 * self.count)
        characters = sorted(set("".join(every) or LETTERS) - set(" ,."))
        if self.as_released:
            draws = [noise(classnames, words, characters, count, rng) for _ in names]
            kept = rng.choice(len(names))
            shared = [self.sentence(names[kept], d) for d in draws[kept]]
            rows = [[s.replace(names[kept], name) for s in shared] for name in names]
        else:
            shared = noise(names, words, characters, count, rng)
            rows = [[self.sentence(name, d) for d in shared] for name in names]
        if self.mode == "waffle":
            return rows
        for row, name, own in zip(rows, names, lists, strict=True):
            row += [self.sentence(name, rng.choice(own)) for _ in range(2 * count)]
        return [list(rng.choice(row, 3 * count, replace=False)) for row in rows]

    def sentence(self, name, descriptor):
        """A class with a descriptor, joined by its first word, or as released by its first letters."""
        first = descriptor if self.as_released else f"{descriptor} ".partition(" ")[0]
        begins = (lambda *words: first.startswith(words)) if self.as_released else lambda *words: first in words
        verb = (
            "" if begins("has", "often", "typically", "may", "can") else "is " if begins("a", "an", "used") else "has "
        )
        return f"{self.before}{name}, which {verb}{descriptor}{self.after}"


def noise(classnames, words, characters, count, rng):
    """`count` phrases of words and as many of characters, in turn, about as long as the names of classes."""
    parts = [name.replace("_", " ").split(" ") for name in classnames]
    number = max(1, round(np.mean([len(p) for p in parts])))
    length = round(np.mean([np.mean([len(word) for word in p]) for p in parts]))
    groups = round(np.mean([name.count(" ") for name in classnames])) + 1
    longest = [max(len(word) for word in name.split(" ")) for name in classnames]
    size = int(np.ceil(np.mean(longest))) // groups + 1  # characters in a group

    def draw(things, n):
        return [rng.choice(things, 1, replace=False)[0] for _ in range(n)]

    short = [word[:length] for word in words]
    phrases = []
    for _ in range(count):
        phrases.append(" ".join(draw(short, number)))
        phrases.append(", ".join("".join(draw(characters, size)) for _ in range(groups)))
    return phrases


@hookimpl
def methods():
    return {"waffle-clip": WaffleCLIP}
