"""CoOp's context, shifted for each image by what a small network makes of its embedding.

Source: Zhou et al., Conditional Prompt Learning for Vision-Language Models, arXiv:2203.05557.
Deviations: random views come from a cache of ten unless ``fresh``; the authors draw a new one at every step. Float32
instead of float16. Every image has class embeddings of its own: B images of C classes are B * C sentences.
"""

import torch
from torch import nn

from adaptkit import Method, Prompts, Schedule, hookimpl, unit
from adaptkit.io.ranges import Size
from adaptkit.methods.prompt_learner import ContextLearner
from adaptkit.methods.schedule import COCOOP


class CoCoOp(ContextLearner):
    """Trained context words for the prompts, shifted for each image by a small network."""

    n: Size = 4  # context words, at most those of `init`
    init: str = "a photo of a"  # words to start from; "" for a random start
    bottleneck: Size = 16  # the network's hidden width is the embedding's over this
    schedule: Schedule = COCOOP

    def fit(self, task):
        self.backbone = task.backbone
        words = {"n": self.n, "init": self.init, "position": self.position}
        self.prompts = Prompts(task.backbone, task.classnames, **words)
        starts = len(task.classnames) if self.per_class else 1
        self.learn_from([self.prompts.start(self.std) for _ in range(starts)])  # (n, W) or (C, n, W)
        hidden, width = max(1, task.backbone.dim // self.bottleneck), task.backbone.width["text"]
        self.meta_net = nn.Sequential(nn.Linear(task.backbone.dim, hidden), nn.ReLU(), nn.Linear(hidden, width))

    loss = Method.loss  # of answers whose class embeddings are each image's own

    def forward(self, batch):
        at_once = max(1, self.prompts.chunk // len(self.prompts.places))  # images
        return torch.cat([self.conditioned(part) for part in batch.x.split(at_once)])

    def conditioned(self, x):
        contexts = self.context + self.meta_net(x)[:, None, None]  # (B, 1, n, W) or (B, C, n, W): v_m + pi
        return self.backbone.logits(x, unit(self.prompts.encode(contexts)))


@hookimpl
def methods():
    return {"cocoop": CoCoOp}
