"""Learned context words in front of, around or behind the class name, the same for all images.

Source: Zhou et al., Learning to Prompt for Vision-Language Models, arXiv:2109.01134.
Deviations: 50 epochs whatever the shots; the authors train 50 with one shot and on ImageNet, 100 with two and four, and
200 with more. Random views come from a cache of ten unless ``fresh``; the authors draw a new one at every step. Float32
instead of float16.
"""

import torch
from torch import nn

from adaptkit import Prompts, hookimpl, unit
from adaptkit.io.ranges import Size
from adaptkit.methods.prompt_learner import PromptLearner
from adaptkit.towers.prompting import Position


class CoOp(PromptLearner):
    """Trained context words around the class name, the same for all images."""

    n: Size = 16  # context words; ignored with `init`
    position: Position = "end"  # of the class name
    per_class: bool = False  # a context for each class

    def fit(self, task):
        self.backbone = task.backbone
        n = len(self.init.split()) or self.n
        self.prompts = Prompts(task.backbone, task.classnames, n=n, init=self.init, position=self.position)
        contexts = torch.stack([self.prompts.start(self.std) for _ in task.classnames])
        self.context = nn.Parameter(contexts if self.per_class else contexts[0])  # (C, n, W) or (n, W)

    def retarget(self, task):
        if self.per_class:
            raise ValueError("per_class must be false where a context serves other classes; got true")
        super().retarget(task)

    def forward(self, batch):
        return self.backbone.logits(batch.x, unit(self.prompts.encode(self.context)))


@hookimpl
def methods():
    return {"coop": CoOp}
