"""AMU-Tuning: a linear head on a second tower corrects zero-shot, more where zero-shot is unsure.

Source: Tang et al., AMU-Tuning: Effective Logit Bias for CLIP-based Few-shot Learning, arXiv:2404.08958.
Deviations: each step sees one of the stored views of an image instead of a fresh one, and the last epoch is kept; the
release keeps the epoch that does best on the test set. The head starts from class means; the release divides each
class's sum by the mean number of shots, and adds the largest probability to ``energy``, which is a slip;
``as_released=True`` does so. Its entropy is not a number where a probability underflows; ours is finite. Alpha is for a
logit scale of 100 and is rescaled.
The constant 250 of the kurtosis is for 1000 classes: with few classes the factor grows.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pooled, Schedule, ZeroShot, hookimpl
from adaptkit.io.ranges import Share, Views, Weight
from adaptkit.methods.ops import class_sums

Uncertainty = Literal["moment", "entropy", "energy", "max", "max-min", "var", "top5", "none"]


class AMUTuning(ZeroShot):
    """Corrects zero-shot by a trained head on a second tower, most where it is unsure.

    Zero-shot plus ``alpha * uncertainty * standardised auxiliary logits``; only the auxiliary head is trained.
    """

    second: str = ""  # the auxiliary tower; without, the task's own serves
    alpha: Weight = 0.5  # weight of the auxiliary logits, for a logit scale of 100
    merge: Share = 0.35  # lambda: share of the fused logits' loss, the rest is the auxiliary's own
    uncertainty: Uncertainty = "moment"  # of the zero-shot probabilities
    power: Weight = 0.4  # of the uncertainty
    views: Views = 10  # random views per support image
    augment: str = "crop-flip"
    as_released: bool = False
    schedule: Schedule = Schedule(
        epochs=50, lr=1e-3, batch_size=8, optimizer="adamw", weight_decay=0.01, eps=1e-4, decay="cosine"
    )

    def needs(self):
        return {"x": Pooled(), "z": Pooled(backbone=self.second)}

    def support_needs(self):
        views = {"views": self.views, "augment": self.augment}
        return {"x": Pooled(**views), "z": Pooled(**views, backbone=self.second)}

    def fit(self, task):
        super().fit(task)
        z, labels, count = task.support.z.mean(1), task.support.labels, len(self.text)
        shots = labels.bincount(minlength=count).clamp_min(1)[:, None]
        self.head = nn.Parameter(class_sums(z, labels, count) / (len(z) / count if self.as_released else shots))

    def forward(self, batch):
        return self.logits(batch.x, batch.z)[0]

    def logits(self, x, z):
        """Fused and auxiliary logits, ``(B, C)`` each."""
        zero_shot, auxiliary = self.zero_shot(x), z @ self.head.T
        auxiliary = (auxiliary - auxiliary.mean(-1, keepdim=True)) / auxiliary.std(-1, keepdim=True)
        weight = self.backbone.logit_scale / 100 * self.alpha * self.factor(zero_shot.softmax(-1))
        return zero_shot + weight * auxiliary, auxiliary

    def factor(self, p):
        """How unsure probabilities ``(B, C)`` are, ``(B, 1)``."""
        if self.uncertainty == "moment":
            centred = p - p.mean(-1, keepdim=True)
            kurtosis = (centred / p.std(-1, keepdim=True)).pow(4).mean(-1, keepdim=True)
            return (kurtosis / 250) ** -self.power
        if self.uncertainty == "entropy":  # as a share of the largest possible
            share = torch.special.entr(p).sum(-1, keepdim=True) / torch.tensor(float(p.shape[-1])).log()
            return (share * self.power).exp()
        if self.uncertainty == "var":
            return p.std(-1, keepdim=True)
        best = p.topk(min(5, p.shape[-1])).values
        sure = {
            "max": best[:, :1],
            "max-min": best[:, :1] - p.amin(-1, keepdim=True),
            "top5": best[:, :1] - best[:, -1:],
            "energy": 2 * (p / 2).logsumexp(-1, keepdim=True) + self.as_released * best[:, :1],
            "none": torch.ones_like(best[:, :1]),
        }
        return sure[self.uncertainty] ** -self.power

    def loss(self, batch):
        x, z, rows = batch.x, batch.z, torch.arange(len(batch), device=batch.x.device)
        view = torch.randint(x.shape[1], (len(rows),)).to(rows.device)  # the same one for both towers
        merged, auxiliary = self.losses(x[rows, view], z[rows, view], batch.labels)
        return self.merge * merged + (1 - self.merge) * auxiliary

    def losses(self, x, z, labels):
        """Cross-entropy of the fused and of the auxiliary logits."""
        return tuple(F.cross_entropy(logits, labels) for logits in self.logits(x, z))


@hookimpl
def methods():
    return {"amu-tuning": AMUTuning}
