"""DePT on CoOp: a linear head beside the learned words takes up what is peculiar to the classes that are learned.

The head reads images and, in training, class embeddings too, both of any norm and each with a scale and a shift of its
own in every channel. Learned classes are answered by words and head together, other classes by the words alone.

Source: Zhang et al., DePT: Decoupled Prompt Tuning, arXiv:2309.07439.
Deviations: the schedule is CoOp's, at whose rate the words learn; head, scales and shifts learn at `pace` times it, of
which the number is from memory. Words start from "a photo of a", as CoOp's do where new classes are asked; where the
authors' start could not be checked. Random views come from a cache of ten unless ``fresh``; the authors draw a new one
at every step. Float32 instead of float16. The release also takes the first half of ImageNet for learned classes where
another dataset is asked; here all other classes are.
Interactions: words and head are weighed as they are, logits of very different scale; so `weight` counts for less where
the factor from cosine to logit is large.
"""

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pooled, hookimpl, unit
from adaptkit.io.ranges import Share, Weight
from adaptkit.methods.ops import as_queries
from adaptkit.methods.prompt_learner import ContextLearner
from adaptkit.methods.schedule import COOP, Schedule


class ChannelScale(nn.Module):
    """A learned scale and shift of each channel."""

    def __init__(self, width):
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return self.scale * x + self.bias


class DePT(ContextLearner):
    """Trained context words, and beside them a head for the classes that are learned."""

    init: str = "a photo of a"
    weight: Share = 0.7  # of the head, in the loss and in answers; the words have the rest
    pace: Weight = 6.5  # rate of the head, its scales and shifts, over that of the words
    schedule: Schedule = COOP

    def needs(self):
        return {"x": Pooled(unit=False)}

    def support_needs(self):
        views = 1 if self.fresh else self.views
        return {"views": Pooled(views=views, augment="wide-crop-flip", fresh=self.fresh, unit=False)}

    def fit(self, task):
        super().fit(task)
        width = task.backbone.dim
        self.of_image, self.of_text = ChannelScale(width), ChannelScale(width)
        self.head, self.known = nn.Linear(width, len(task.classnames)), True

    def retarget(self, task):
        super().retarget(task)
        self.known = False  # the head has no rows for these classes

    def parameter_groups(self, parameters):
        words = [p for p in parameters if p is self.context]
        rest = [p for p in parameters if p is not self.context]
        return [{"params": words}, {"params": rest, "lr": self.pace * self.schedule.lr}]

    def similarity(self, x, text):
        """What the words say of raw embeddings, ``(B, C)``."""
        return self.backbone.logits(unit(x), unit(text))

    def probed(self, x):
        """What the head says of raw image embeddings, ``(B, C)``."""
        return self.head(self.of_image(x))

    def forward(self, batch):
        by_words = self.similarity(batch.x, self.prompts.encode(self.context))
        return torch.lerp(by_words, self.probed(batch.x), self.weight) if self.known else by_words

    def loss(self, batch):
        x, text = as_queries(batch, self.needs()).x, self.prompts.encode(self.context)
        rows = torch.cat([self.of_text(text[batch.labels]), self.of_image(x)])  # (2 B, D)
        by_head = F.cross_entropy(self.head(rows), batch.labels.repeat(2))
        return torch.lerp(self.evaluation.loss(self.similarity(x, text), batch.labels), by_head, self.weight)


@hookimpl
def methods():
    return {"de-pt": DePT}
