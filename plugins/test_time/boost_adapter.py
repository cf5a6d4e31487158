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
from adaptkit.io.ranges import Count, Share, Views, Weight
from adaptkit.methods.class_cache import ClassCache
from adaptkit.methods.ops import class_sums, entropy, in_parts


class BoostAdapter(ZeroShot):
    """Zero-shot plus two caches, of test images so far and of the image's own sure views.

    The views enter a copy of the positive cache that lasts for one image.
    """

    scope = "stream"

    alpha: Weight = 1.0  # weight of the positive cache
    beta: Weight = 8.0  # sharpness of its affinity
    capacity: Count = 3  # its slots per class; 0 leaves it out
    delta: Count = 1  # slots per class that the copy has beyond those
    negative_alpha: Weight = 0.117
    negative_beta: Weight = 1.0
    negative_capacity: Count = 2  # 0 leaves the negative cache out
    window: tuple[Share, Share] = (0.2, 0.5)  # entropies that enter the negative cache, nats over log2 C
    mask: tuple[Share, Share] = (0.03, 1.0)  # zero-shot probabilities of the classes that a negative speaks against
    keep: Share = 0.1  # share of the views, the most confident, that boost
    average: bool = False  # whether those also stand for the image, as on ImageNet's variants, not the plain image
    views: Views = 64  # the plain image among them
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
        x, logits, p, own = in_parts(self.stands_for, batch.views)
        label, h = logits.argmax(-1), -torch.xlogy(p, p).sum(-1)
        share = h / math.log2(p.shape[1])
        age = self.age - 1 - torch.arange(len(x)).to(self.age)
        self.age = self.age - len(x)
        unsure = (self.window[0] < share) & (share < self.window[1])
        rank = torch.where(unsure, age if self.as_released else h, torch.inf)
        against = 0
        for held in self.negative.admit(label, rank, x, (self.mask[0] < p) & (p < self.mask[1])):
            against = against + held.affinity(x, self.negative_beta).T @ held.marks  # (B, C)
        for_ = self.boosted(x, own, self.positive.admit(label, h, x))
        scale = self.backbone.logit_scale / 100
        return logits + scale * (self.alpha * for_ - self.negative_alpha * against)

    def replay(self, stream):
        return self(stream)

    def stands_for(self, views):
        """Embedding, logits and probabilities of images, and their most confident views, the surest first."""
        logits = self.zero_shot(views)  # (..., V, C)
        order = entropy(logits).argsort(dim=-1, stable=True)
        kept = order[..., : max(1, int(self.keep * order.shape[-1])), None]  # (..., J, 1)
        own = views.take_along_dim(kept, -2)
        chosen = kept if self.average else torch.zeros_like(kept[..., :1, :])
        logits = logits.take_along_dim(chosen, -2)
        return views.take_along_dim(chosen, -2).mean(-2), logits.mean(-2), logits.softmax(-1).mean(-2), own

    def boosted(self, x, views, caches):
        """Affinities to the positive cache, summed by class, ``(B, C)``, as if the views ``(B, J, D)`` had entered."""
        logits = self.zero_shot(views)
        h, labels = entropy(logits), logits.argmax(-1)  # (B, J)
        met = torch.cat([cache.met(len(x)) for cache in caches])  # (M, B)
        held = torch.cat([cache.affinity(x, self.beta) for cache in caches])
        label, surest = (torch.cat([getattr(cache, name) for cache in caches]) for name in ("label", "entropy"))
        total = class_sums(held, label, len(self.text)).T.contiguous()  # (B, C)
        if not self.capacity:
            return total
        of, i = table(label, len(self.text))[labels], torch.arange(len(x)).to(label)[:, None, None]
        there, same = (of >= 0) & met[of, i], labels[:, :, None] == labels[:, None]  # (B, J, E), (B, J, J)
        ranks = torch.cat([surest[of].where(there, torch.inf), h[:, None].where(same, torch.inf)], -1)
        own = (self.beta * ((views @ x[..., None])[..., 0] - 1)).exp()
        votes = torch.cat([held[of, i] * there, own[:, None] * same], -1)
        first = ranks.argsort(dim=-1, stable=True)[..., : self.capacity + self.delta]
        return total.scatter_(1, labels, votes.take_along_dim(first, -1).sum(-1))


def table(labels, classes):
    """Rows that have each label, ``(C, E)``, padded with -1."""
    order, count = labels.argsort(stable=True), labels.bincount(minlength=classes)
    place = torch.arange(len(order)).to(order) - (count.cumsum(0) - count)[labels[order]]
    out = order.new_full((classes, int(count.max())), -1)
    out[labels[order], place] = order
    return out


@hookimpl
def methods():
    return {"boost-adapter": BoostAdapter}
