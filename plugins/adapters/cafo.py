"""CaFo: two caches of support images, seen by CLIP and by a second tower, fused by how well each agrees with zero-shot.

Source: Zhang et al., Prompt, Generate, then Cache: Cascade of Foundation Models makes Strong Few-shot Learners,
arXiv:2303.02151.
Deviations: each step sees one of the stored views of an image instead of a fresh one, and the last epoch is kept; the
release keeps the epoch that does best on the test set, and lets its learning rate rise again in the second half, as it
counts half the steps. The paper's images made by DALL-E enter as support images do, if the support has them; its GPT-3
sentences by the prompts `llm`. With ``schedule: {epochs: 0}`` the caches are fused without training.
Fused logits keep the scale of standard deviations; alpha is for a logit scale of 100 and is rescaled to the backbone's.
"""

from typing import Literal

import torch
from torch import nn

from adaptkit import Pooled, Schedule, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Positive, Tries, Views, Weight
from adaptkit.methods.kernels import kernel_sums, row_blocks
from adaptkit.methods.ops import class_sums
from adaptkit.methods.search import Linear


class CaFo(ZeroShot):
    """Zero-shot plus two trained caches of support images, of CLIP and of a second tower."""

    second: str = ""  # the second tower, e.g. "hf:facebook/dino-vitb16"; without, the task's own is both
    alpha: Weight = 0.6  # weight of the fused caches, for a logit scale of 100
    beta: Weight = 1.0  # sharpness of similarities in both
    normalize: Literal["mean", "softmax", "linear"] = "mean"  # of each row of logits before the fusion
    views: Views = 10  # random views per support image
    augment: str = "crop-flip"
    search_scale: tuple[Positive, Positive] = (7, 3)  # upper ends of beta and alpha
    search_steps: tuple[Tries, Tries] = (200, 20)  # values of beta and alpha
    schedule: Schedule = Schedule(
        epochs=20, lr=1e-3, batch_size=256, optimizer="adamw", weight_decay=0.01, eps=1e-4, decay="cosine"
    )

    def needs(self):
        return {"x": Pooled(), "z": Pooled(backbone=self.second)}

    def support_needs(self):
        views = {"views": self.views, "augment": self.augment, "unit": False}
        return {"x": Pooled(**views), "z": Pooled(**views, backbone=self.second)}

    def grid(self):
        ends = zip(("beta", "alpha"), self.search_scale, self.search_steps, strict=True)
        return {name: tuple(i * (end - 0.1) / steps + 0.1 for i in range(steps)) for name, end, steps in ends}

    def fit(self, task):
        super().fit(task)
        self.keys = nn.Parameter(unit(task.support.x.mean(1)))  # (S, D)
        self.second_keys = nn.Parameter(unit(task.support.z.mean(1)))  # (S, D')
        self.labels = nn.Buffer(task.support.labels)  # (S,)

    def forward(self, batch):
        return self.logits(batch.x, batch.z)

    def logits(self, x, z):
        """Unit-norm embeddings by both towers to ``(B, C)``."""
        zero_shot = self.zero_shot(x)
        votes = [self.votes(affinity, self.beta) for affinity in (x @ self.keys.T, z @ self.second_keys.T)]
        return zero_shot + self.alpha * self.fused(zero_shot, torch.stack(votes))

    def fused(self, zero_shot, votes):
        """Both caches' votes, ``(2, ..., B, C)``, added up by a softmax over their agreement with zero-shot."""
        caches = self.normalized(votes)
        agreement = (caches * self.normalized(zero_shot)).sum(-1, keepdim=True)  # (2, ..., B, 1)
        return self.backbone.logit_scale / 100 * (agreement.softmax(0) * caches).sum(0)

    def votes(self, affinity, beta):
        """Similarity to a cache, ``(B, S)``, summed over each class, ``(B, C)``."""
        return class_sums((beta * (affinity - 1)).exp().T, self.labels, len(self.text)).T

    def normalized(self, logits):
        """Rows of mean 0 and deviation 1, or probabilities, or of unit norm."""
        if self.normalize == "softmax":
            return logits.softmax(-1)
        if self.normalize == "linear":
            return unit(logits)
        return (logits - logits.mean(-1, keepdim=True)) / logits.std(-1, keepdim=True)

    def sweep(self, val):
        classes, betas = len(self.text), self.grid()["beta"]
        for x, z in zip(row_blocks(val.x, classes), row_blocks(val.z, classes), strict=True):
            affinities, zero_shot = (self.keys @ x.T, self.second_keys @ z.T), self.zero_shot(x)
            for votes in zip(*(kernel_sums(a, self.labels, classes, betas) for a in affinities), strict=True):
                yield Linear(zero_shot, {"alpha": self.fused(zero_shot, torch.stack(votes))})


@hookimpl
def methods():
    return {"cafo": CaFo}
