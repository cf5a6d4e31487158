"""Two caches of the test images seen so far, filled by the surest zero-shot answers and by the unsure ones.

Source: Karmanov et al., Efficient Test-Time Adaptation of Vision-Language Models, arXiv:2403.18293.
Deviations: none known from the released code, which we follow where the paper leaves room: an image enters the caches
before its own logits are computed, and the window of the negative cache is on the entropy in nats over log2 C, so that
(0.2, 0.5) is (0.29, 0.72) of the largest entropy. The release chose alpha and beta for each test set (1 to 4, 1 to 8);
our defaults are ImageNet's. It keeps ``int(keep * V)`` views, none of fewer than ten; we keep at least one. The cache
terms are sized for logits of scale 100, so they are multiplied by a hundredth of the checkpoint's scale.
"""

import math

import torch
from torch import nn

from adaptkit import Pooled, ZeroShot, hookimpl
from adaptkit.ops import entropy


class TDA(ZeroShot):
    """Answers depend on the images before, in the order they come; what enters the caches, on zero-shot alone."""

    scope = "stream"

    alpha: float = 2.0  # weight of the positive cache
    beta: float = 5.0  # sharpness of its affinity
    capacity: int = 3  # its slots per class; 0 leaves it out
    negative_alpha: float = 0.117
    negative_beta: float = 1.0
    negative_capacity: int = 2  # 0 leaves the negative cache out
    window: tuple[float, float] = (0.2, 0.5)  # entropies that enter the negative cache, nats over log2 C
    mask: tuple[float, float] = (0.03, 1.0)  # zero-shot probabilities of the classes that a negative speaks against
    views: int = 1  # the plain image; the paper takes 64 for ImageNet-A, -R, -Sketch and -V2
    keep: float = 0.1  # share of the views, the most confident, that stand for the image
    augment: str = "augmix"

    def needs(self):
        return {"views": Pooled(views=self.views, plain_first=True, augment=self.augment)}

    def fit(self, task):
        super().fit(task)
        classes, width = self.text.shape
        self.positive = Cache(classes, self.capacity, width).to(self.text)
        self.negative = Cache(classes, self.negative_capacity, width, marks=classes).to(self.text)

    def forward(self, batch):
        x, logits, log_p = self.summary(batch.views[0])  # (D,), (C,), (C,)
        label, h, p = logits.argmax(-1), entropy(log_p), log_p.exp()
        self.positive.admit(label, h, x)
        share = h / math.log2(len(p))
        unsure = (self.window[0] < share) & (share < self.window[1])
        marks = (self.mask[0] < p) & (p < self.mask[1])
        self.negative.admit(label, torch.where(unsure, h, torch.inf), x, marks)
        for_ = self.positive.affinity(x, self.beta).sum(1)  # P_pos, (C,)
        against = self.negative.affinity(x, self.negative_beta).flatten() @ self.negative.marks.flatten(0, 1)  # P_neg
        scale = self.backbone.logit_scale / 100
        return (logits + scale * (self.alpha * for_ - self.negative_alpha * against))[None]

    def summary(self, views):
        """The image as its most confident views have it: mean embedding, mean logits, log of their mean probability."""
        logits = self.zero_shot(views)  # (V, C)
        kept = entropy(logits).argsort(stable=True)[: max(1, int(self.keep * len(views)))]
        log_p = logits[kept].log_softmax(-1).logsumexp(0) - math.log(len(kept))
        return views[kept].mean(0), logits[kept].mean(0), log_p


class Cache(nn.Module):
    """``(C, K)`` slots; in those of one class, the surest of its images so far, the surest first."""

    def __init__(self, classes, slots, width, marks=0):
        super().__init__()
        self.register_buffer("keys", torch.zeros(classes, slots, width))
        self.register_buffer("marks", torch.zeros(classes, slots, marks))  # classes that the image speaks against
        self.register_buffer("entropy", torch.full((classes, slots), torch.inf))  # infinite where empty

    def admit(self, label, h, x, marks=()):
        """Enter an image of entropy `h`. Among equals the older stays; infinite entropy never enters."""
        ranks = torch.cat([self.entropy[label], h[None]])  # (K + 1,)
        order = ranks.argsort(stable=True)[:-1]
        self.entropy[label] = ranks[order]
        self.keys[label] = torch.cat([self.keys[label], x[None]])[order]
        self.marks[label] = torch.cat([self.marks[label], torch.as_tensor(marks).to(x)[None]])[order]

    def affinity(self, x, beta):
        """``exp(-beta (1 - x k))`` of each slot, ``(C, K)``; 0 where empty."""
        return (beta * (self.keys @ x - 1)).exp() * self.entropy.isfinite()


@hookimpl
def methods():
    return {"tda": TDA}
