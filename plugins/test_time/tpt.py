"""For each image anew, one step of prompt tuning towards views that agree: no labels, no memory of earlier images.

Source: Shu et al., Test-Time Prompt Tuning for Zero-Shot Generalization in Vision-Language Models, arXiv:2209.07511.
Deviations: float32 instead of mixed precision. The views of an image are drawn once and cached. The authors mix their
views by AugMix on fine-grained datasets only: ``augment: augmix``.
"""

from typing import Literal

import torch
from torch import nn

from adaptkit import Method, Pooled, Prompts, hookimpl, unit
from adaptkit.io.ranges import Share, Size, Steps, Views, Weight
from adaptkit.methods.ops import entropy


class TPT(Method):
    """Tunes the prompt's context words, for each image anew, until its sure views agree.

    Minimises the entropy of the mean prediction over the most confident views, by the context words alone.
    """

    n: Size = 4  # context words
    init: str = "a photo of a"  # words to start from
    views: Views = 64  # the image itself and random views
    augment: Literal["wide-crop-flip", "crop-flip", "augmix"] = "wide-crop-flip"
    keep: Share = 0.1  # share of the views, those of lowest entropy
    steps: Steps = 1  # of AdamW, from its empty state
    lr: Weight = 5e-3
    weight_decay: Weight = 0.01  # AdamW's own default, which the authors leave as it is

    def needs(self):
        return {"views": Pooled(views=self.views, plain_first=True, augment=self.augment)}

    def support_needs(self):
        return {}

    def fit(self, task):
        self.backbone = task.backbone
        self.prompts = Prompts(task.backbone, task.classnames, n=self.n, init=self.init)
        self.register_buffer("context", self.prompts.words())  # (n, W)

    def forward(self, batch):
        return torch.cat([self.logits(views[:1], self.tuned(views)) for views in batch.views])

    def logits(self, x, context):
        return self.backbone.logits(x, unit(self.prompts.encode(context)))

    @torch.enable_grad()
    def tuned(self, views):
        """The context after the steps, ``(n, W)``, for one image's views, ``(V, D)``."""
        context = nn.Parameter(self.context.clone())
        optimizer = torch.optim.AdamW([context], self.lr, weight_decay=self.weight_decay)
        chosen = None
        for _ in range(self.steps):
            logits = self.logits(views, context)  # (V, C)
            chosen = self.confident(logits) if chosen is None else chosen  # by the first step, for all
            (context.grad,) = torch.autograd.grad(self.disagreement(logits[chosen]), context)
            optimizer.step()
        return context.detach()

    def confident(self, logits):
        """Indices of the views to keep, by ascending entropy."""
        return entropy(logits).argsort()[: max(1, int(self.keep * len(logits)))]

    def disagreement(self, logits):
        """Entropy of the mean of the softmax distributions: ``(K, C)`` to a scalar, nats."""
        return entropy(logits.log_softmax(-1).logsumexp(0))


@hookimpl
def methods():
    return {"tpt": TPT}
