"""Transduction over lists of attributes, and what its rounds are made of: classes to tell apart, images to learn from.

Source: Saha et al., Generate, Transduct, Adapt: Iterative Transduction with VLMs, arXiv:2501.06031.
Deviations: the attributes are the task's prompts, several a class; here is no language model that writes more for the
pairs of `confusions`, and no training of the towers on the images of `examples` by `contrast`. So an answer is the
transduction of one round, where the release takes the best of 30 by the test labels. As released, a class's logit is
the mean over its attributes: the mean of their embeddings, not brought back to unit norm.
"""

from dataclasses import field

import torch
from torch import nn

from adaptkit import Method, OverBase, ZeroShot, hookimpl, method, predict
from adaptkit.io.ranges import Share, Size


class AttributeMean(ZeroShot):
    """The mean of the logits of a class's sentences."""

    def fit(self, task):
        super().fit(task)
        self.text = torch.stack([rows.mean(0) for rows in task.text_per_prompt])


class GTACLIP(OverBase):
    """A Gaussian mixture over all queries, of classes described by lists of attributes.

    The logits are those of `base`: log-probabilities by TransCLIP.
    """

    scope = "set"

    base: Method = field(default_factory=lambda: method("trans-clip", base=AttributeMean()))
    gap: Share = 0.1  # an image is confused whose two best classes are closer than this
    fraction: Share = 0.05  # of the pairs of classes that confuse images, the share to ask about
    k: Size = 8  # examples of a class, those that it is most probable for

    def fit(self, task):
        super().fit(task)
        counts = torch.tensor([len(rows) for rows in task.text_per_prompt]).to(task.text.device)
        self.attributes = nn.Buffer(torch.cat(task.text_per_prompt))  # (A, D)
        self.owner = nn.Buffer(torch.arange(len(counts)).to(counts).repeat_interleave(counts))  # its class, (A,)

    def forward(self, batch):
        return predict(self.base, batch)

    def confusions(self, z):
        """Pairs of classes, ``(P, 2)``, ascending, and how many images each confuses, of probabilities ``(N, C)``."""
        top = z.topk(2)
        confused = top.values[:, 0] - top.values[:, 1] < self.gap
        return top.indices[confused].sort(-1).values.unique(dim=0, return_counts=True)

    def threshold(self, counts):
        """The number that a pair must confuse more images than, so that about the right share of the pairs does."""
        options = range(int(counts.max()) + 1 if len(counts) else 1)
        return min(options, key=lambda t: abs(int((counts > t).sum()) - self.fraction * len(counts)))

    def examples(self, z):
        """The most probable images of each class, ``(C, k)``, which may be examples of several."""
        return z.topk(min(self.k, len(z)), 0).indices.T

    def contrast(self, examples, images, x, attributes):
        """The loss that the towers would be tuned by, on B images, ``(B,)`` ids and ``(B, D)``, and B attributes' ids.

        An image and an attribute belong together if the image is an example of the attribute's class.
        """
        belong = (examples[self.owner[attributes]] == images[:, None, None]).any(-1).float()  # (B, B)
        logits = self.backbone.logits(x, self.attributes[attributes])
        rows = -(belong * logits.log_softmax(1)).sum(1) / belong.sum(1).clamp_min(1)
        columns = -(belong * logits.log_softmax(0)).sum(0) / belong.sum(0).clamp_min(1)
        return rows.mean() + columns.mean()


@hookimpl
def methods():
    return {"gta-clip": GTACLIP}
