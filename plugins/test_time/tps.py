"""For each image anew, a shift of every class embedding towards views that agree: no gradient through any tower.

Source: Sui et al., Just Shift It: Test-Time Prototype Shifting for Zero-Shot Generalization with Vision-Language
Models, arXiv:2403.12952.
Deviations: float32 instead of mixed precision. The views of an image are drawn once and cached; on fine-grained
datasets the authors mix them by AugMix (``augment: augmix``) and step by 1e-3. Their best prototypes average
hand-written templates and written descriptions, which here are the task's prompts. We always keep one view. Each class
has a shift of its own, as in the paper; ``per_label: false`` is the release without that flag, one for all.
"""

import torch
from torch import nn

from adaptkit import Pooled, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Share, Steps, Views, Weight
from adaptkit.methods.ops import entropy


class TPS(ZeroShot):
    """Shifts the class embeddings, for each image anew, until its sure views agree."""

    views: Views = 64  # the image itself and random views
    augment: str = "wide-crop-flip"
    keep: Share = 0.1  # share of the views, those of lowest entropy
    steps: Steps = 1  # of AdamW, from its empty state
    lr: Weight = 5e-3
    weight_decay: Weight = 0.01  # AdamW's own default, which the authors leave as it is
    per_label: bool = True  # a shift for each class, or one for all

    def needs(self):
        return {"views": Pooled(views=self.views, plain_first=True, augment=self.augment)}

    def forward(self, batch):
        return torch.cat([self.backbone.logits(views[:1], self.shifted(views)) for views in batch.views])

    @torch.enable_grad()
    def shifted(self, views):
        """Class embeddings after the steps, unit-norm ``(C, D)``, for one image's views, ``(V, D)``."""
        shift = nn.Parameter(torch.zeros_like(self.text if self.per_label else self.text[0]))  # (C, D) or (D,)
        optimizer = torch.optim.AdamW([shift], self.lr, weight_decay=self.weight_decay)
        for _ in range(self.steps):
            logits = self.backbone.logits(views, unit(self.text + shift))  # (V, C)
            kept = entropy(logits.detach()).argsort(stable=True)[: max(1, int(self.keep * len(logits)))]
            mean = logits[kept].log_softmax(-1).logsumexp(0)  # up to a constant
            (shift.grad,) = torch.autograd.grad(entropy(mean), shift)
            optimizer.step()
        return unit(self.text + shift.detach())


@hookimpl
def methods():
    return {"tps": TPS}
