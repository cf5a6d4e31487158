"""Regularised linear adapter: a square matrix after the frozen projection, held near the identity.

Source: Fahes et al., Fine-tuning CLIP's Last Visual Projector, arXiv:2410.05270, where it is what ProLIP becomes when
the embeddings before the projection cannot be had.
Deviations: each epoch sees the next of the stored views of every image, ten by default; the release stores 300. Its
search of rate and penalty retrains for every cell, and is not here. Float32; the release keeps weights and optimiser in
half precision, for which its epsilon was chosen.
"""

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Schedule, hookimpl
from adaptkit.io.ranges import Views, Weight
from adaptkit.methods.adapter import ImageAdapter


class RegLinearAdapter(ImageAdapter):
    """Trains a square matrix on the image embedding, held near the identity.

    ``unit(M x)`` against the class embeddings, from the raw embedding x; M starts as the identity.
    """

    penalty: Weight = 1.0  # lambda times the shots per class; lambda weighs the squared distance of M from the identity
    views: Views = 10  # random views per support image, one an epoch in turn
    augment: str = "crop-flip"
    schedule: Schedule = Schedule(
        epochs=300, lr=1e-5, batch_size=2**20, optimizer="adam", eps=1e-4, decay="cosine-epoch"
    )

    def fit(self, task):
        super().fit(task)
        self.weight = nn.Parameter(torch.eye(self.text.shape[1]).to(self.text))  # M, (D, D)
        self.strength = self.penalty * len(task.classnames) / max(1, len(task.support))  # lambda
        self.turn = 0

    def adapted(self, x):
        return x @ self.weight.T

    def distance(self):
        """Squared distance from the identity: a sum."""
        return (self.weight - torch.eye(len(self.weight)).to(self.weight)).square().sum()

    def loss(self, batch):
        self.turn += 1  # the second view first, as released
        logits = self.logits(batch.views[:, self.turn % batch.views.shape[1]])
        return F.cross_entropy(logits, batch.labels) + self.strength * self.distance()


@hookimpl
def methods():
    return {"reg-linear-adapter": RegLinearAdapter}
