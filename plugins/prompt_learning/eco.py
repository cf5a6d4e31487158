"""An ensemble of short learned contexts in place of a long one; a class is the mean of its embeddings under all.

Source: Agnolucci et al., ECO: Ensembling Context Optimization for Vision-Language Models, arXiv:2307.14063.
Deviations: there is no public code, and of the paper no more than its summary could be read: diverse and possibly
shorter contexts, trained together, at no further cost once they are. That there are four of four words, as many words
as CoOp's sixteen, that embeddings have unit norm before they are averaged, and CoOp's schedule and random start are
ours. Ten cached views stand for fresh ones unless ``fresh``. Float32 instead of float16.
"""

import torch
from torch import nn

from adaptkit import Method, Pooled, Prompts, Schedule, hookimpl, unit
from adaptkit.io.ranges import Size, Views, Weight
from adaptkit.methods.schedule import COOP
from adaptkit.towers.prompting import Position


class ECO(Method):
    """Several short trained contexts, whose class embeddings are averaged."""

    lengths: tuple[Size, ...] = (4, 4, 4, 4)  # words of each context
    position: Position = "end"  # of the class name
    std: Weight = 0.02  # of the random start
    views: Views = 10  # cached random views of each support image; one is drawn at every step
    fresh: bool = False  # draw views anew instead
    schedule: Schedule = COOP

    tunable = ("contexts",)

    def support_needs(self):
        return {"views": Pooled(views=1 if self.fresh else self.views, augment="wide-crop-flip", fresh=self.fresh)}

    def __post_init__(self):
        if not self.lengths:
            raise ValueError("eco.lengths must be at least one number; got none")

    def fit(self, task):
        self.backbone = task.backbone
        self.members = [Prompts(task.backbone, task.classnames, n=n, position=self.position) for n in self.lengths]
        self.contexts = nn.ParameterList(member.start(self.std) for member in self.members)  # each (n, W)

    def retarget(self, task):
        self.members = [member.of(task.classnames) for member in self.members]

    def forward(self, batch):
        pairs = zip(self.members, self.contexts, strict=True)
        text = torch.stack([unit(member.encode(context)) for member, context in pairs])  # (K, C, D)
        return self.backbone.logits(batch.x, unit(text.mean(0)))


@hookimpl
def methods():
    return {"eco": ECO}
