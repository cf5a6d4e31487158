"""TaskRes: a learned residual is added to each class's raw text embedding.

Source: Yu et al., Task Residual for Tuning Vision-Language Models, arXiv:2211.10277.
Deviations: each step sees one of the stored views of an image instead of a fresh augmentation. The paper trains for 200
epochs on 8 and 16 shots, with a learning rate of 2e-4 on ImageNet, and uses alpha 1 on Flowers102; these are options
here. Its "enhanced base", a text projection tuned first, is not here.
"""

import torch
from torch import nn

from adaptkit import Pooled, Schedule, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Views, Weight


class TaskRes(ZeroShot):
    """Adds a trained residual to each class's text embedding.

    ``text + alpha * residual`` instead of ``text``; how far that turns a class depends on its raw norm.
    """

    alpha: Weight = 0.5  # weight of the residual
    views: Views = 10  # random views per support image, to train on
    augment: str = "wide-crop-flip"
    schedule: Schedule = Schedule(
        epochs=100,
        lr=2e-3,
        batch_size=256,
        optimizer="adam",
        weight_decay=5e-4,
        decay="cosine-epoch",
        warmup=1,
        drop_last=True,
    )

    def support_needs(self):
        return {"views": Pooled(views=self.views, augment=self.augment)}

    def fit(self, task):
        super().fit(task)
        raw = task.encode([s for sentences in task.prompts for s in sentences]).to(self.text)
        raw = torch.stack([rows.mean(0) for rows in raw.split([len(sentences) for sentences in task.prompts])])
        self.raw = nn.Buffer(raw)  # (C, D), not of unit norm
        self.residual = nn.Parameter(torch.zeros_like(raw))

    def forward(self, batch):
        return self.backbone.logits(batch.x, unit(self.raw + self.alpha * self.residual))


@hookimpl
def methods():
    return {"task-res": TaskRes}
