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

from adaptkit import Pooled, ZeroShot, hookimpl
from adaptkit.io.ranges import Count, Share, Views, Weight
from adaptkit.methods.class_cache import ClassCache
from adaptkit.methods.ops import class_sums, entropy, in_parts


class TDA(ZeroShot):
    """Zero-shot plus two caches of the test images so far, the sure and the unsure ones.

    Answers depend on the images before, in the order they come; what enters the caches, on zero-shot alone.
    """

    scope = "stream"

    alpha: Weight = 2.0  # weight of the positive cache
    beta: Weight = 5.0  # sharpness of its affinity
    capacity: Count = 3  # its slots per class; 0 leaves it out
    negative_alpha: Weight = 0.117
    negative_beta: Weight = 1.0
    negative_capacity: Count = 2  # 0 leaves the negative cache out
    window: tuple[Share, Share] = (0.2, 0.5)  # entropies that enter the negative cache, nats over log2 C
    mask: tuple[Share, Share] = (0.03, 1.0)  # zero-shot probabilities of the classes that a negative speaks against
    views: Views = 1  # the plain image; the paper takes 64 for ImageNet-A, -R, -Sketch and -V2
    keep: Share = 0.1  # share of the views, the most confident, that stand for the image
    augment: str = "augmix"

    def needs(self):
        return {"views": Pooled(views=self.views, plain_first=True, augment=self.augment)}

    def fit(self, task):
        super().fit(task)
        self.positive = ClassCache(self.text, self.capacity)
        self.negative = ClassCache(self.text, self.negative_capacity, marks=len(self.text))  # it speaks against those

    def forward(self, batch):
        x, logits, log_p = in_parts(self.summary, batch.views)  # (B, D), (B, C), (B, C)
        label, h, p = logits.argmax(-1), entropy(log_p), log_p.exp()
        share = h / math.log2(p.shape[1])
        unsure = (self.window[0] < share) & (share < self.window[1])
        marks = (self.mask[0] < p) & (p < self.mask[1])
        scale = self.backbone.logit_scale / 100
        for held in self.positive.admit(label, h, x):
            votes = held.affinity(x, self.beta)  # (M, B)
            logits = logits + (scale * self.alpha) * class_sums(votes, held.label, len(self.text)).T  # P_pos
        for held in self.negative.admit(label, torch.where(unsure, h, torch.inf), x, marks):
            votes = held.affinity(x, self.negative_beta)
            logits = logits - (scale * self.negative_alpha) * (votes.T @ held.marks)  # P_neg
        return logits

    def replay(self, stream):
        return self(stream)

    def summary(self, views):
        """Images as their most confident views have them: mean embedding and logits, log of the mean probability."""
        if views.shape[1] == 1:
            logits = self.zero_shot(views[:, 0])
            return views[:, 0], logits, logits.log_softmax(-1)
        logits = self.zero_shot(views)  # (B, V, C)
        order = entropy(logits).argsort(dim=1, stable=True)
        kept = order[:, : max(1, int(self.keep * order.shape[1]))]
        views, logits = (rows[torch.arange(len(rows))[:, None], kept] for rows in (views, logits))
        log_p = logits.log_softmax(-1)
        log_p = log_p.logsumexp(1) - math.log(kept.shape[1]) if kept.shape[1] > 1 else log_p[:, 0]
        return views.mean(1), logits.mean(1), log_p


@hookimpl
def methods():
    return {"tda": TDA}
