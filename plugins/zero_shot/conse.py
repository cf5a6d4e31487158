"""ConSE: an image is the mean of the names a classifier gives it, and its class the name nearest to that.

Source: Norouzi et al., Zero-Shot Learning by Convex Combination of Semantic Embeddings, arXiv:1312.5650.
Deviations: names are embedded by the backbone's text tower, not as word vectors. The paper's classifier is trained on
known classes and answers among others; here `base` answers, the classes with support images are the known ones (all
are, if none has any), and all classes are candidates.
"""

import torch
import torch.nn.functional as F

from adaptkit import OverBase, hookimpl, unit
from adaptkit.io.ranges import Size


class ConSE(OverBase):
    """Averages the names that known classes give an image, and picks the nearest class."""

    top: Size = 10  # T: known classes that enter the mean

    def fit(self, task):
        super().fit(task)
        self.register_buffer("text", task.text.clone())  # (C, D)
        labels = task.support.labels
        known = labels.unique() if labels is not None and len(labels) else torch.arange(len(self.text))
        self.register_buffer("known", known.to(self.text.device))

    def forward(self, batch):
        best = self.base(batch)[:, self.known].softmax(-1).topk(min(self.top, len(self.known)))
        p = best.values / best.values.sum(-1, keepdim=True)  # (B, T)
        mean = F.embedding_bag(best.indices, self.text[self.known], per_sample_weights=p, mode="sum")  # (B, D)
        return self.backbone.logits(unit(mean), self.text)


@hookimpl
def methods():
    return {"conse": ConSE}
