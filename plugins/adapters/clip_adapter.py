"""CLIP-Adapter: a small network refines the image embedding before it meets the zero-shot head.

Source: Gao et al., CLIP-Adapter: Better Vision-Language Models with Feature Adapters, arXiv:2110.04544.
Deviations: each step sees one of the stored views of an image instead of a fresh augmentation. The paper's optional
adapter of the text is not in the released code and not here. The release ships no configuration; the schedule is the
one of the CoOp code base that it is built in. The paper tries ratios from 0.2 to 0.8 per dataset.
"""

from dataclasses import replace

import torch.nn.functional as F
from torch import nn

from adaptkit import Pooled, Schedule, ZeroShot, hookimpl, unit
from adaptkit.methods.ops import one_view
from adaptkit.methods.schedule import DASSL


class CLIPAdapter(ZeroShot):
    """A small trained network refines the image embedding before the zero-shot head."""

    ratio: float = 0.2  # share of the adapter's output in the blend, alpha
    reduction: int = 4  # width of the embedding over that of the bottleneck
    views: int = 10  # random views per support image, to train on
    augment: str = "wide-crop-flip"
    schedule: Schedule = replace(DASSL, epochs=200)

    def needs(self):
        return {"x": Pooled(unit=False)}

    def support_needs(self):
        return {"views": Pooled(unit=False, views=self.views, augment=self.augment)}

    def fit(self, task):
        super().fit(task)
        width = self.text.shape[1]
        down = nn.Linear(width, width // self.reduction, bias=False)
        up = nn.Linear(width // self.reduction, width, bias=False)
        self.adapter = nn.Sequential(down, nn.ReLU(), up, nn.ReLU())

    def retarget(self, task):
        super().fit(task)  # what is learned knows no class

    def forward(self, batch):
        return self.logits(batch.x)

    def logits(self, x):
        """``(B, D)`` raw embeddings to ``(B, C)``."""
        return self.zero_shot(unit(self.ratio * self.adapter(x) + (1 - self.ratio) * x))

    def loss(self, batch):
        return F.cross_entropy(self.logits(one_view(batch.views)), batch.labels)


@hookimpl
def methods():
    return {"clip-adapter": CLIPAdapter}
