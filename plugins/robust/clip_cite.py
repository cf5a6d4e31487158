"""CLIP-CITE: both towers whole, tuned to tell all classes apart and held to the similarities they began with.

Source: Liu et al., Fully Fine-tuned CLIP Models are Efficient Few-Shot Learners, arXiv:2407.04003.
Deviations: there is no public code, and this was written from the abstract and summaries. They name three parts of the
loss, a discriminative task over all classes, a supervised alignment of images and texts in the batch, and distillation
of their similarities; the forms of the three, their equal weights, and the schedule are our reading and could not be
checked. The temperature is the backbone's, and is not trained.
Interactions: with ``align: 0`` and ``distil: 0`` it is plain fine-tuning of both towers by cross-entropy.
"""

import torch
import torch.nn.functional as F

from adaptkit import Schedule, hookimpl, unit
from adaptkit.io.ranges import Weight
from adaptkit.methods.tuned_weights import TowerTuner


class CLIPCITE(TowerTuner):
    """Both towers whole, trained to tell classes apart and held to how they began."""

    align: Weight = 1.0  # of the supervised alignment of images and texts in a batch
    distil: Weight = 1.0  # of the distance to the frozen towers' answers
    schedule: Schedule = Schedule(epochs=20, lr=5e-6, batch_size=32, weight_decay=0.01)

    def fit(self, task):
        super().fit(task)
        self.frozen = torch.nn.Buffer(task.text.clone(), persistent=False)  # (C, D), the teacher's

    def loss(self, batch):
        pixels, text = batch.views[:, 0], self.text()
        x = self.images(pixels)
        logits = self.backbone.logits(x, text)  # (B, C)
        return (
            F.cross_entropy(logits, batch.labels)
            + self.align * self.alignment(logits[:, batch.labels], batch.labels)
            + self.distil * self.distance(logits, pixels)
        )

    def alignment(self, pairs, labels):
        """Supervised contrastive loss of images and their texts, ``(B, B)`` logits: pairs of one class are right."""
        same = (labels[:, None] == labels).to(pairs)
        same = same / same.sum(1, keepdim=True)
        return -(same * (pairs.log_softmax(1) + pairs.T.log_softmax(1))).sum(1).mean() / 2

    def distance(self, logits, pixels):
        """Kullback-Leibler divergence of the answers from the frozen towers' on the same views, nats."""
        with torch.no_grad():
            before = self.backbone.logits(unit(self.backbone.encode_image(pixels)), self.frozen)
        return F.kl_div(logits.log_softmax(1), before.log_softmax(1), log_target=True, reduction="batchmean")


@hookimpl
def methods():
    return {"clip-cite": CLIPCITE}
