"""The mean answer of an image's most confident views.

Source: Shu et al., Test-Time Prompt Tuning for Zero-Shot Generalization in Vision-Language Models, arXiv:2209.07511.
Deviations: views are chosen as there, and their probabilities averaged; no prompt is tuned.
"""

import torch

from adaptkit import Pooled, ZeroShot, hookimpl
from adaptkit.io.ranges import Share, Views
from adaptkit.methods.ops import entropy


class SureViews(ZeroShot):
    """The mean answer of an image's most confident views."""

    views: Views = 16  # the plain image among them
    keep: Share = 0.25  # share of the views that count, the most confident
    augment: str = "wide-crop-flip"

    def needs(self):
        return {"views": Pooled(views=self.views, plain_first=True, augment=self.augment)}  # of each query

    def forward(self, batch):
        logits = self.zero_shot(batch.views)  # (B, V, C)
        kept = max(1, int(self.keep * logits.shape[1]))
        surest = entropy(logits).argsort(dim=1, stable=True)[:, :kept]  # (B, K)
        rows = torch.arange(len(logits), device=logits.device)[:, None]
        return logits[rows, surest].log_softmax(-1).logsumexp(1)  # (B, C), up to a constant


@hookimpl
def methods():
    return {"example-sure-views": SureViews}
