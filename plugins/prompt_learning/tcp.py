"""Context words, and tokens made of what a hand-written sentence says of each class, in a middle block of the tower.

The hand-written sentences are the task's own, one for each dataset in the paper: ``prompts: templates``. The learned
sentences close as they do, e.g. in ", a type of pet.".

Source: Yao et al., TCP: Textual-based Class-aware Prompt tuning for Visual-Language Model, arXiv:2311.18231.
Deviations: the tokens are as many as the context words; the release has four, which take the place of the first four
words, even of the name, whatever the context: ``as_released``. Towers with at most ``block`` blocks get them before
their last; one of a single block has them added to the context. The paper adds the mean squared distance of class
embeddings, as KgCoOp, here of unit norm; the release adds one minus their mean cosine, which is half of it:
``as_released``. Adam, 50 epochs and batches of 32 are the release's configuration. Random views
come from a cache of ten unless ``fresh``; the authors draw a new one at every step. Float32 instead of float16.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Prompts, Schedule, hookimpl, unit
from adaptkit.io.ranges import Count, Size, Weight
from adaptkit.methods.blocks import activated
from adaptkit.methods.prompt_learner import AnchoredLearner, around, distance
from adaptkit.methods.schedule import DASSL


class TCP(AnchoredLearner):
    """Trained context words, replaced in a middle block by tokens made of each class."""

    n: Size = 4  # context words, and tokens of each class; ignored with `init`
    init: str = "a photo of a"  # words to start from; "" for a random start
    block: Count = 8  # counted from 0, that the tokens enter in the context's place
    bottleneck: Size = 4  # the network's hidden width is the embedding's over this
    weight: Weight = 8.0  # omega, of the distance to the hand-written sentences
    as_released: bool = False  # half of the distance, and four tokens whatever the words
    schedule: Schedule = replace(DASSL, optimizer="adam")

    def fit(self, task):
        super().fit(task)
        words = {**self.prompts.words_around, "suffix": around(task)[1]}
        self.prompts = Prompts(task.backbone, task.classnames, **words)
        self.enters = min(self.block, task.backbone.depth["text"] - 1)
        task.backbone.require(f"text.block.{self.enters}")
        width, hidden = task.backbone.width["text"], max(1, task.backbone.dim // self.bottleneck)
        self.down = nn.Linear(task.backbone.dim, hidden)
        self.count = 4 if self.as_released else self.prompts.n
        self.up = nn.Linear(hidden, self.count * width)

    def tokens(self):
        """Of each class, ``(C, K, W)``: made of its frozen class embedding."""
        hidden = activated(self.down(self.frozen), "quick")
        return self.up(hidden).unflatten(-1, (self.count, -1))

    def text(self):
        tokens, more = self.tokens(), self.prompts.n - self.count
        if not self.enters:
            return unit(self.prompts.encode(self.context + F.pad(tokens, (0, 0, 0, more))))
        if not more:
            return unit(self.prompts.encode(self.context, {self.enters: tokens}))
        first, last = self.backbone.prefix, self.backbone.prefix + self.count

        def enter(_, words):
            return torch.cat([words[:, :first], tokens.to(words.dtype), words[:, last:]], 1)  # all C classes at once

        with self.backbone.taps({f"text.block.{self.enters - 1}": enter}):
            return unit(self.prompts.encode(self.context))

    def penalty(self, text):
        return self.weight * distance(text, self.frozen) / (2 if self.as_released else 1)


@hookimpl
def methods():
    return {"tcp": TCP}
