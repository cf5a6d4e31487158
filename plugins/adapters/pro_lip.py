"""ProLIP: only the last linear map of the image tower is trained, held near its pretrained value.

Source: Fahes et al., Fine-tuning CLIP's Last Visual Projector, arXiv:2410.05270.
Deviations: each epoch sees the next of the stored views of every image, ten by default; the release stores 300. Their
learning rate for use without validation, 1e-5; their search of rate and penalty retrains for every cell, and is not
here. Float32; the release keeps weights and optimiser in half precision, for which its epsilon was chosen.
Interactions: the tower must end in a linear map, as CLIP's do; a bias (ResNets) stays frozen.
"""

import torch.nn.functional as F
from torch import nn

from adaptkit import Pooled, Schedule, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Views, Weight


class ProLIP(ZeroShot):
    """Trains only the last linear map of the image tower, held near where it started.

    ``unit(h W)`` against the class embeddings, from the embedding h before the projection.
    """

    penalty: Weight = 1.0  # lambda times the shots per class; lambda weighs the squared distance from the pretrained W
    views: Views = 10  # random views per support image, one an epoch in turn
    augment: str = "crop-flip"
    schedule: Schedule = Schedule(
        epochs=300, lr=1e-5, batch_size=2**20, optimizer="adam", eps=1e-4, decay="cosine-epoch"
    )

    def needs(self):
        return {"h": Pooled(unit=False, projected=False)}

    def support_needs(self):
        return {"h": Pooled(unit=False, projected=False, views=self.views, augment=self.augment)}

    def fit(self, task):
        super().fit(task)
        point = task.backbone.points.get("image.projection")
        if point is None or not isinstance(point.module, nn.Linear):
            got = type(task.backbone).__name__
            raise ValueError(f"the backbone must end in a linear visual projection for pro-lip; got {got}")
        self.weight = nn.Parameter(task.backbone.weight("image.projection").clone())  # (D, W)
        self.strength = self.penalty * len(task.classnames) / max(1, len(task.support))  # lambda
        self.turn = 0

    def retarget(self, task):
        super().fit(task)  # what is learned knows no class

    def forward(self, batch):
        return self.logits(batch.h)

    def logits(self, h):
        """``(B, W)`` embeddings before the projection to ``(B, C)``."""
        with self.backbone.weights({"image.projection": self.weight}):
            return self.zero_shot(unit(self.backbone.points["image.projection"](h)))

    def distance(self):
        """Squared distance from the pretrained projection: a sum."""
        return (self.weight - self.backbone.weight("image.projection")).square().sum()

    def loss(self, batch):
        views = batch.h
        self.turn += 1  # the second view first, as released
        logits = self.logits(views[:, self.turn % views.shape[1]])
        return F.cross_entropy(logits, batch.labels) + self.strength * self.distance()


@hookimpl
def methods():
    return {"pro-lip": ProLIP}
