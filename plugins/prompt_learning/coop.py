"""Learned context words in front of, around or behind the class name, the same for all images.

Source: Zhou et al., Learning to Prompt for Vision-Language Models, arXiv:2109.01134.
Deviations: 50 epochs whatever the shots; the authors train 50 with one shot and on ImageNet, 100 with two and four, and
200 with more. Random views come from a cache of ten unless ``fresh``; the authors draw a new one at every step. Float32
instead of float16.
"""

import torch
from torch import nn

from adaptkit import Method, Pooled, Prompts, Schedule, hookimpl, unit
from adaptkit.methods.ops import one_view
from adaptkit.methods.schedule import DASSL
from adaptkit.towers.prompting import Position


class CoOp(Method):
    """Trained context words around the class name, the same for all images."""

    n: int = 16  # context words; ignored with `init`
    init: str = ""  # words to start from, e.g. "a photo of a"; without them the start is random
    position: Position = "end"  # of the class name
    per_class: bool = False  # a context for each class
    std: float = 0.02  # of the random start
    views: int = 10  # cached random views of each support image; one is drawn at every step
    fresh: bool = False  # draw views anew instead
    schedule: Schedule = DASSL

    def support_needs(self):
        return {"views": Pooled(views=1 if self.fresh else self.views, augment="wide-crop-flip", fresh=self.fresh)}

    def fit(self, task):
        self.backbone = task.backbone
        n = len(self.init.split()) or self.n
        self.prompts = Prompts(task.backbone, task.classnames, n=n, init=self.init, position=self.position)
        contexts = torch.stack([self.prompts.start(self.std) for _ in task.classnames])
        self.context = nn.Parameter(contexts if self.per_class else contexts[0])  # (C, n, W) or (n, W)

    def retarget(self, task):
        if self.per_class:
            raise ValueError("per_class must be false where a context serves other classes; got true")
        self.prompts = self.prompts.of(task.classnames)

    def loss(self, batch):
        return nn.functional.cross_entropy(self.logits(one_view(batch.views)), batch.labels)

    def forward(self, batch):
        return self.logits(batch.x)

    def logits(self, x):
        return self.backbone.logits(x, unit(self.prompts.encode(self.context)))


@hookimpl
def methods():
    return {"coop": CoOp}
