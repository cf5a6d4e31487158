"""Any vision tower answers to text: a linear map, fitted on unlabelled images, carries its embeddings to CLIP's.

Source: Moayeri et al., Text-To-Concept (and Back) via Cross-Model Alignment, arXiv:2305.06386.
Deviations: where it undoes the scaling of both towers' embeddings the release multiplies the bias by the factor of the
map, which is too much by that of the second tower: ``as_released=True``. The paper's images are ImageNet's training
set; here they are the task's pool or, without one, the support, whose labels are not read.
Interactions: without `second` the task's own tower is mapped to itself. The text may be any concept: classes and their
sentences are not read while the map is fitted.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn

from adaptkit import Pooled, Schedule, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Many, Positive


@dataclass(frozen=True, kw_only=True)
class OpenEnd(Schedule):
    """A rate that falls along a cosine from epoch to epoch, towards an end that training need not reach."""

    horizon: Many = 200  # epochs to where the cosine ends

    def rate(self, step, per_epoch, total):
        done = min(1, step // per_epoch / self.horizon)
        return self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * done)) / 2


class TextToConcept(ZeroShot):
    """Zero-shot with a second tower's embeddings, carried to the text by a linear map."""

    second: str = ""  # the tower that is mapped, e.g. "hf:facebook/dino-vitb16"; without, the task's own
    variance: Positive = 4.5  # that all numbers of both towers' embeddings are scaled to, for training
    as_released: bool = False  # the bias scaled like the map
    schedule: Schedule = OpenEnd(epochs=6, lr=0.01, batch_size=100, optimizer="sgd", weight_decay=5e-4)

    def needs(self):
        return {"z": Pooled(backbone=self.second, unit=False)}

    def support_needs(self):
        return self.pool_needs()

    def pool_needs(self):
        return {"x": Pooled(unit=False), **self.needs()}

    def training_images(self, task):
        pool = task.pool
        return task.support if pool is None or not len(pool) else pool.bind(self.pool_needs())

    def fit(self, task):
        super().fit(task)
        images = self.training_images(task)
        if not len(images):
            raise ValueError("text-to-concept must have images to fit its map to, a pool or a support; got none")
        spread = [math.sqrt(max(1e-12, float(rows.var(correction=0)))) for rows in (images.z, images.x)]
        self.scale_z, self.scale_x = (nn.Buffer(self.text.new_tensor(self.variance**0.5 / s)) for s in spread)
        self.map = nn.Linear(images.z.shape[1], images.x.shape[1]).to(self.text)

    def retarget(self, task):
        ZeroShot.fit(self, task)

    def loss(self, batch):
        return F.mse_loss(self.map(self.scale_z * batch.z), self.scale_x * batch.x)

    def aligned(self, z):
        """``(B, D')`` embeddings by the second tower to raw ones of the task's, ``(B, D)``."""
        bias = self.map.bias * (self.scale_z if self.as_released else 1) / self.scale_x
        return F.linear(z, self.map.weight * self.scale_z / self.scale_x, bias)

    def forward(self, batch):
        return self.zero_shot(unit(self.aligned(batch.z)))


@hookimpl
def methods():
    return {"text-to-concept": TextToConcept}
