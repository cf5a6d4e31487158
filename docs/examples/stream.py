"""Class means of the images seen so far, each in the class that zero-shot gives it, added to the zero-shot logits.

Source: Karmanov et al., Efficient Test-Time Adaptation of Vision-Language Models, arXiv:2403.18293, simplified.
Deviations: every image counts in its class's mean, by how sure zero-shot is; there is no cache and no negative one.
"""

import torch

from adaptkit import ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Weight


class RunningMeans(ZeroShot):
    """Class means of the images seen so far, added to the zero-shot logits."""

    scope = "stream"  # answers depend on the images before, which come one by one

    weight: Weight = 1.0  # of the means, beside the text

    def fit(self, task):
        super().fit(task)
        self.register_buffer("sums", torch.zeros_like(self.text))  # (C, D): what it remembers, saved with it

    def forward(self, batch):
        logits = self.zero_shot(batch.x)  # (1, C): a stream's batch is one image
        share, label = logits.softmax(-1).max(-1)
        self.sums[label] += share[:, None] * batch.x
        seen = self.sums.norm(dim=-1) > 0  # classes without an image so far have the text alone
        means = torch.where(seen[:, None], unit(self.sums), 0)
        return logits + self.weight * self.backbone.logit_scale * batch.x @ means.T


@hookimpl
def methods():
    return {"example-running-means": RunningMeans}
