"""Class embeddings and image prototypes that evolve together: one gradient step for each test image, kept where sure.

Source: Zhang et al., Dual Prototype Evolving for Test-Time Generalization of Vision-Language Models, arXiv:2410.12790.
Deviations: float32 instead of mixed precision. As in the released code: the running mean of the class embeddings is not
brought back to unit norm and counts the first ones as one image; the residuals make one step of AdamW from zero; the
class that an image is cached under is the best of its confident views' mean logits, its rank there the entropy of their
mean probability; the prototypes are learned on the mean of those views and asked by the plain image, except on
ImageNet-A. The release chose alpha, beta and the rates for each test set; our defaults are ImageNet's. The cache's term
is sized for logits of scale 100, so it is multiplied by a hundredth of the checkpoint's scale. We keep at least one
view.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pooled, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Epsilon, Positive, Share, Size, Views, Weight
from adaptkit.methods.class_cache import ClassCache
from adaptkit.methods.ops import entropy


class DPE(ZeroShot):
    """Class embeddings and image prototypes that learn one step from each test image.

    Answers depend on the images before, in the order they come.
    """

    scope = "stream"

    alpha: Weight = 6.0  # weight of the image prototypes
    beta: Weight = 5.0  # sharpness of their affinity
    capacity: Size = 3  # images per class, those of lowest entropy, that make a prototype
    lr_text: Weight = 6e-4  # how far a residual of a class embedding goes in its step
    lr_image: Weight = 6e-4  # likewise of a prototype
    align: Weight = 0.5  # weight of the loss that draws prototypes and class embeddings together
    temperature: Positive = 0.01  # of that loss
    gate: Weight = 0.1  # entropy, nats over log2 C, below which an image moves the class embeddings for good
    eps: Epsilon = 1e-3  # of AdamW
    keep: Share = 0.1  # share of the views, the most confident, that a step is taken on
    average: bool = False  # whether those also ask in the end, as on ImageNet-A, not the plain image
    views: Views = 64  # the plain image among them
    augment: str = "wide-crop-flip"

    def needs(self):
        return {"views": Pooled(views=self.views, plain_first=True, augment=self.augment)}

    def fit(self, task):
        super().fit(task)
        self.cache = ClassCache(self.text, self.capacity)
        self.seen = nn.Buffer(self.text.new_ones(()))  # images that the class embeddings are the mean of

    def forward(self, batch):
        views = batch.views[0]  # (V, D)
        text = unit(self.text)
        x, logits, log_p = self.confident(views, text)
        self.cache.admit(logits.argmax()[None], entropy(log_p)[None], x[None])
        classes, prototypes = self.prototypes()  # (P,), (P, D)
        text_step, image_step = self.step(views, classes, prototypes)
        text, prototypes = unit(self.text + text_step), unit(prototypes + image_step)
        x = self.confident(views, text)[0] if self.average else views[0]
        logits = self.logits(x, text, classes, prototypes)
        if entropy(logits) / math.log2(len(text)) < self.gate:
            self.text = (self.text * self.seen + text) / (self.seen + 1)
            self.seen += 1
        return logits[None]

    def confident(self, views, text):
        """Of the most confident views: mean ``(D,)``, mean logits and logarithm of the mean probability, ``(C,)``."""
        logits = self.backbone.logits(views, text)
        kept = entropy(logits.detach()).argsort(stable=True)[: max(1, int(self.keep * len(views)))]
        logits = logits[kept]
        return views[kept].mean(0), logits.mean(0), logits.log_softmax(-1).logsumexp(0) - math.log(len(kept))

    def prototypes(self):
        """Classes with images in the cache, ``(P,)``, and the means of those, ``(P, D)``."""
        count = self.cache.held.sum(1)
        classes = count.nonzero()[:, 0]
        return classes, self.cache.keys[classes].sum(1) / count[classes, None]

    def logits(self, x, text, classes, prototypes):
        """Zero-shot logits and the prototypes' votes, ``(C,)``."""
        votes = (self.beta * (prototypes @ x - 1)).exp()  # (P,)
        votes = torch.zeros_like(text[:, 0]).index_add(0, classes, votes)
        return self.backbone.logits(x[None], text)[0] + self.alpha * self.backbone.logit_scale / 100 * votes

    @torch.enable_grad()
    def step(self, views, classes, prototypes):
        """What the residuals of text ``(C, D)`` and prototypes ``(P, D)`` are after one step from zero."""
        residuals = [torch.zeros_like(rows, requires_grad=True) for rows in (self.text, prototypes)]
        text, images = unit(self.text + residuals[0]), unit(prototypes + residuals[1])
        x = self.confident(views, text)[0]
        agreement = images @ text[classes].T / self.temperature  # (P, P)
        own = torch.arange(len(classes)).to(classes)
        align = F.cross_entropy(agreement, own, reduction="sum") / max(1, len(classes))
        grads = torch.autograd.grad(entropy(self.logits(x, text, classes, images)) + self.align * align, residuals)
        return [-lr * g / (g.abs() + self.eps) for lr, g in zip((self.lr_text, self.lr_image), grads, strict=True)]


@hookimpl
def methods():
    return {"dpe": DPE}
