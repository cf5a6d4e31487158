"""A trained shift of each class embedding, held to where it started.

Source: Yu et al., Task Residual for Tuning Vision-Language Models, arXiv:2211.10277, which it simplifies.
Deviations: the shift is of the unit-norm embedding, and a penalty on its length is added to the cross-entropy.
"""

import torch
from torch import nn

from adaptkit import Pooled, Schedule, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Views, Weight


class Shifts(ZeroShot):
    """A trained shift of each class embedding, held to where it started."""

    penalty: Weight = 0.1  # on the mean squared length of the shifts
    views: Views = 4  # random views of each support image, of which a step draws one
    schedule: Schedule = Schedule(epochs=20, lr=1e-3, optimizer="adam")  # makes it a trained method

    def support_needs(self):
        return {"views": Pooled(views=self.views)}

    def fit(self, task):
        super().fit(task)
        self.shift = nn.Parameter(torch.zeros_like(self.text))  # (C, D): what requires a gradient after fit is trained

    def forward(self, batch):
        return self.backbone.logits(batch.x, unit(self.text + self.shift))  # (B, C)

    def loss(self, batch):
        return super().loss(batch) + self.penalty * self.shift.square().sum(1).mean()  # cross-entropy, and the penalty


@hookimpl
def methods():
    return {"example-shifts": Shifts}
