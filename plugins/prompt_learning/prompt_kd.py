"""PromptKD: tokens in the image tower learn from unlabelled images what a prompted teacher says of them.

The teacher, `base`, learns from the labelled images and is then frozen. Its class embeddings are the student's, too,
which learns deep tokens of the image tower and a projector behind it on the pool, by the teacher's answers. The paper's
teacher is ``base: prompt-src``.

Source: Li et al., PromptKD: Unsupervised Prompt Distillation for Vision-Language Models, arXiv:2403.02781.
Deviations: the teacher is of the task's own backbone; theirs is a ViT-L/14 for a ViT-B/16. The pool has the images of
learned classes alone; theirs has all of them where new classes are asked. As in the release, the divergence is divided
by the number of classes as well, which its weight makes good for. Float32 instead of float16. Towers with fewer than
``depth`` blocks get tokens in all of them.
Interactions: the projector's batch norm ties what a batch teaches together; a batch of one image teaches nothing, and
is refused.
"""

from dataclasses import field, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Method, Pixels, Schedule, hookimpl, method, unit
from adaptkit.io.ranges import Positive, Size, Weight
from adaptkit.methods.ops import as_queries
from adaptkit.methods.schedule import DASSL
from adaptkit.methods.tower_prompts import ImagePrompts, TowerPrompts
from adaptkit.methods.unlabelled import PoolLearner


class PromptKD(PoolLearner, ImagePrompts):
    """Image tokens and a projector, trained on a pool by what prompted towers answer."""

    exempt: ClassVar = {"beats_chance": "a random projector needs more than sixty steps, and so does its teacher"}

    base: Method = field(default_factory=lambda: method("ivlp"))  # the teacher, with tokens in both towers
    n: Size = 4  # learned tokens
    depth: Size = 9  # blocks that get tokens of their own
    temperature: Positive = 1.0
    weight: Weight = 1000.0  # of the divergence, which is a mean over images and classes
    schedule: Schedule = replace(DASSL, epochs=20, lr=5e-3, batch_size=8)

    parameter_groups = Method.parameter_groups  # no norm is learned

    def pool_needs(self):
        return {"views": Pixels(views=1, augment="wide-crop-flip", fresh=True)}

    def training_images(self, task):
        pool, size = super().training_images(task), self.schedule.batch_size
        whole = self.schedule.drop_last and len(pool) >= size
        last = size if whole else len(pool) % size or size  # images of the last batch
        if min(len(pool), size, last) < 2:
            raise ValueError(
                f"prompt-kd must learn from batches of two images or more; got {len(pool)} in the pool and "
                f"batches of {size}; set schedule.batch_size"
            )
        return pool

    def fit(self, task):
        if not isinstance(self.base, TowerPrompts):
            raise ValueError(
                f"prompt-kd.base must have tokens in both towers, e.g. ivlp; got {type(self.base).__name__}"
            )
        self.backbone, width = task.backbone, task.backbone.dim
        blocks = min(self.depth, task.backbone.depth["image"])
        self.visual = nn.ParameterList(self.start_tokens("image", self.n, blocks))  # each (n, W)
        self.projector = nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)
        )
        self.retarget(task)

    def retarget(self, task):
        with torch.no_grad():
            self.text = nn.Buffer(unit(self.base.class_embeddings()))  # (C, D), the teacher's

    def image_tokens(self):
        return list(self.visual)

    def class_embeddings(self):
        return self.text

    def prompted(self, pixels):
        return self.projector(super().prompted(pixels))

    def loss(self, batch):
        """Divergence of the student's answers from the teacher's."""
        images = as_queries(batch, self.needs())
        with torch.no_grad():
            told = self.base(images)
        pair = [(logits / self.temperature).log_softmax(1) for logits in (self.forward(images), told)]
        each = F.kl_div(*pair, log_target=True, reduction="none")  # (B, C)
        return self.weight * self.temperature**2 * each.mean()


@hookimpl
def methods():
    return {"prompt-kd": PromptKD}
