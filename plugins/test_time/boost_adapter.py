"""TDA's two caches, and beside the images seen so far the query's own most confident views.

Source: Zhang et al., BoostAdapter: Improving Vision-Language Test-Time Adaptation via Regional Bootstrapping,
arXiv:2410.15430.
Deviations: the released negative cache forgets by age, the oldest first, although it stores the entropies that it was
meant to rank by; ours ranks, and ``as_released=True`` forgets by age. As in the release, views are kept by rank and not
by a threshold on their entropy, an image enters the caches before its own logits are computed, and the window of the
negative cache is on the entropy in nats over log2 C. The release chose alpha, beta and delta for each test set (delta 0
to 3); it has none for ImageNet itself, and our defaults are ImageNet-V2's. The cache terms are sized for logits of
scale 100, so they are multiplied by a hundredth of the checkpoint's scale. We keep at least one view.
"""

import math

import torch
from torch import nn

from adaptkit import Pooled, ZeroShot, hookimpl
from adaptkit.ops import ClassCache, entropy


class BoostAdapter(ZeroShot):
    """The views enter a copy of the positive cache that lasts for one image."""

    scope = "stream"

    alpha: float = 1.0  # weight of the positive cache
    beta: float = 8.0  # sharpness of its affinity
    capacity: int = 3  # its slots per class; 0 leaves it out
    delta: int = 1  # slots per class that the copy has beyond those
    negative_alpha: float = 0.117
    negative_beta: float = 1.0
    negative_capacity: int = 2  # 0 leaves the negative cache out
    window: tuple[float, float] = (0.2, 0.5)  # entropies that enter the negative cache, nats over log2 C
    mask: tuple[float, float] = (0.03, 1.0)  # zero-shot probabilities of the classes that a negative speaks against
    keep: float = 0.1  # share of the views, the most confident, that boost
    average: bool = False  # whether those also stand for the image, as on ImageNet's variants, not the plain image
    views: int = 64  # the plain image among them
    augment: str = "wide-crop-flip"
    as_released: bool = False  # the negative cache forgets by age

    def needs(self):
        return {"views": Pooled(views=self.views, plain_first=True, augment=self.augment)}

    def fit(self, task):
        super().fit(task)
        self.positive = ClassCache(self.text, self.capacity)
        self.negative = ClassCache(self.text, self.negative_capacity, marks=len(self.text))
        self.age = nn.Buffer(self.text.new_zeros(()))

    def forward(self, batch):
        views = batch.views[0]  # (V, D)
        x, logits, p, kept = self.stands_for(views)
        label, h = logits.argmax(-1), -torch.xlogy(p, p).sum()
        self.positive.admit(label, h, x)
        share = h / math.log2(len(p))
        self.age -= 1
        unsure = (self.window[0] < share) & (share < self.window[1])
        rank = torch.where(unsure, self.age if self.as_released else h, torch.inf)
        self.negative.admit(label, rank, x, (self.mask[0] < p) & (p < self.mask[1]))
        for_ = self.boosted(x, views[kept])  # (C,)
        against = self.negative.affinity(x, self.negative_beta).flatten() @ self.negative.marks.flatten(0, 1)  # (C,)
        scale = self.backbone.logit_scale / 100
        return (logits + scale * (self.alpha * for_ - self.negative_alpha * against))[None]

    def stands_for(self, views):
        """Embedding, logits and probabilities of an image, and its most confident views, the surest first."""
        logits = self.zero_shot(views)  # (V, C)
        kept = entropy(logits).argsort(stable=True)[: max(1, int(self.keep * len(views)))]
        chosen = kept if self.average else kept.new_zeros(1)
        return views[chosen].mean(0), logits[chosen].mean(0), logits[chosen].softmax(-1).mean(0), kept

    def boosted(self, x, views):
        """Affinities to the positive cache, summed by class, ``(C,)``, as if the views ``(K, D)`` had entered it."""
        logits = self.zero_shot(views)
        h, labels = entropy(logits), logits.argmax(-1)
        held = self.positive.affinity(x, self.beta)  # (C, K)
        total = held.sum(1)
        own = (self.beta * (views @ x - 1)).exp()
        for label in labels.unique() if self.capacity else ():
            ranks = torch.cat([self.positive.entropy[label], h[labels == label]])
            first = ranks.argsort(stable=True)[: self.capacity + self.delta]
            total[label] = torch.cat([held[label], own[labels == label]])[first].sum()
        return total


@hookimpl
def methods():
    return {"boost-adapter": BoostAdapter}
