"""Words far from all class names, mined from a list: an image belongs where classes outweigh them.

Source: Jiang et al., Negative Label Guided OOD Detection with Pretrained Vision-Language Models, arXiv:2403.20078.
Deviations: the authors mine all of WordNet; without a `file` the words are a short list of our own, so that fewer are
far from the classes. Nouns stand in the sentence of the task's own prompts; the authors have "The nice NAME." for both.
Words that are a class's name are left out, which the release does only on request. It parts words into groups of equal
size, dropping the last few, and sums logits in place of probabilities where there is one group: ``as_released=True``.
The order in which words come into groups is drawn; the authors' is seed 0 on a GPU. Higher is in-distribution.
"""

from pathlib import Path
from typing import Annotated

import torch

from adaptkit import Range, ZeroShot, hookimpl, unit
from adaptkit.io.jsons import read_json
from adaptkit.io.paths import expanded
from adaptkit.io.ranges import Positive, Share, Size
from adaptkit.io.text import template
from adaptkit.methods.prompt_learner import around

QUANTILES = 2**23  # numbers at a time; torch takes no more than twice as many
NOUNS = Path(__file__).parents[1] / "zero_shot" / "words.json"
ADJECTIVES = (
    *("ancient", "bitter", "blurry", "bright", "broken", "calm", "clumsy", "colourful", "crowded", "dark", "dirty"),
    *("distant", "dry", "dusty", "empty", "fierce", "flat", "fragile", "frozen", "gentle", "glossy", "gloomy", "heavy"),
    *("hollow", "huge", "humid", "icy", "lonely", "loud", "metallic", "modern", "muddy", "narrow", "noisy", "odd"),
    *("pale", "quiet", "rough", "rusty", "shallow", "sharp", "shiny", "silent", "smooth", "solemn", "steep", "sunny"),
    *("tangled", "transparent", "uneven", "vivid", "wet", "wild", "wooden"),
)


class NegLabel(ZeroShot):
    """Scores an image by the probability that classes keep among words far from them."""

    output = "score"

    file: str = ""  # JSON of words, {"nouns": [...], "adjectives": [...]}
    top: Annotated[float, Range(0.001, 1)] = 0.15  # share of the words that are farthest, of nouns and of adjectives
    percentile: Share = 0.95  # of a word's cosines to the classes, by which it is near or far
    groups: Size = 100  # parts of the words, whose scores are averaged; at most as many as there are words
    temperature: Positive = 1.0  # of logits
    adjective: str = "This is a {} photo."
    as_released: bool = False

    def fit(self, task):
        super().fit(task)
        names = {name.replace("_", " ").lower() for name in task.classnames}
        before, after = around(task)
        sentences = (f"{before} {{}}{after}".strip(), template(self.adjective, "neg-label.adjective"))
        rows = []
        for words, sentence in zip(self.words(), sentences, strict=True):
            own = [word for word in words if self.as_released or word.lower() not in names]
            written = [sentence.replace("{}", word) for word in own]
            rows.append(unit(task.encode(written)).to(self.text) if own else self.text[:0])
        self.keep(rows)

    def words(self):
        """Nouns and adjectives."""
        if not self.file:
            return read_json(NOUNS), ADJECTIVES
        try:
            lists = read_json(expanded(self.file))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ValueError(f"neg-label.file must be JSON that can be read; got {self.file!r}: {why}") from error
        kinds = [lists.get(kind, []) if isinstance(lists, dict) else None for kind in ("nouns", "adjectives")]
        if not any(kinds) or not all(isinstance(k, list) and all(isinstance(w, str) for w in k) for k in kinds):
            raise ValueError(f"file must hold nouns or adjectives, lists of words; got {str(self.file)!r}")
        return kinds

    def keep(self, rows):
        """Keep the farthest of unit-norm nouns and adjectives, ``(., D)`` each, in the order of their groups."""
        chosen = torch.cat([own[self.farthest(own)] for own in rows])  # (M, D)
        if not len(chosen):
            raise ValueError(f"top must leave a word; got {self.top} of {' and '.join(str(len(own)) for own in rows)}")
        count = len(chosen) - (len(chosen) % min(self.groups, len(chosen)) if self.as_released else 0)
        self.register_buffer("negatives", chosen[torch.randperm(count).to(chosen.device)])

    def farthest(self, rows):
        """Which words have the smallest percentile of cosines, the farthest first."""
        count = int(len(rows) * self.top)
        few = max(1, QUANTILES // len(self.text))
        parts = rows.split(few) if len(rows) else ()
        near = [(part @ self.text.T).quantile(self.percentile, dim=1) for part in parts]
        near = torch.cat([rows[:0, 0], *near])  # (n,)
        return near.argsort(stable=True)[:count]

    def forward(self, batch):
        inside = self.backbone.logits(batch.x, self.text) / self.temperature  # (B, C)
        outside = self.backbone.logits(batch.x, self.negatives) / self.temperature  # (B, M)
        if self.as_released and self.groups == 1:
            return inside.sum(1)
        groups = outside.tensor_split(min(self.groups, outside.shape[1]), dim=1)
        share = [(inside.logsumexp(1) - group.logsumexp(1)).sigmoid() for group in groups]
        return torch.stack(share).mean(0)


@hookimpl
def methods():
    return {"neg-label": NegLabel}
