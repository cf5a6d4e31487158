"""Ridge regression from embeddings to one-hot labels, added to the zero-shot logits.

Source: Hoerl and Kennard, Ridge Regression: Biased Estimation for Nonorthogonal Problems, 1970.
Deviations: labels are the targets, and zero-shot logits are added.
"""

import torch

from adaptkit import ZeroShot, hookimpl
from adaptkit.io.ranges import Positive, Weight
from adaptkit.methods.ops import one_hot


class Ridge(ZeroShot):
    """Ridge regression from embeddings to one-hot labels, added to the zero-shot logits."""

    ridge: Positive = 1.0  # added to the diagonal of the Gram matrix
    weight: Weight = 1.0  # of the regression, beside the zero-shot cosine

    def support_needs(self):
        return self.needs()  # {"x": Pooled()}: of support images the same as of queries

    def grid(self):
        return {"weight": (0.1, 1.0, 10.0, 100.0)}  # chosen on validation images, if there are any

    def fit(self, task):
        super().fit(task)  # keeps task.text, (C, D)
        x, labels = task.support.x, task.support.labels  # (S, D), (S,)
        gram = x @ x.T + self.ridge * torch.eye(len(x)).to(x)
        heads = torch.linalg.solve(gram, one_hot(labels, len(task.classnames)).to(x)).T @ x
        self.register_buffer("heads", heads)  # (C, D), saved and moved with the method

    def forward(self, batch):
        regression = batch.x @ self.heads.T  # (B, C)
        return self.zero_shot(batch.x) + self.weight * self.backbone.logit_scale * regression


@hookimpl
def methods():
    return {"example-ridge": Ridge}
