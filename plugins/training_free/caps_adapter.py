"""CapS-Adapter: TIP-X whose cached keys mix each support image with its caption.

Source: Wang et al., CapS-Adapter: Caption-based MultiModal Adapter in Zero-Shot Classification, arXiv:2405.16591. The
support is meant to be images that were generated from captions of a few target images; any support will do.
Deviations: captions come with an array task, as ``captions`` beside ``views`` (``captions: given``); without, the class
embedding stands for the caption. The default search is coarser; theirs is ``search_steps: [20, 200, 11, 50]``. Without
validation images the weights are its lower ends. The range of all divergences is moved to that of all affinities, so an
answer depends on the other queries. The release compares softmaxes over the channels of embeddings where the paper has
distributions over classes, and takes the divergences of the last, incomplete block of 10 rows for zero:
``as_released=True``. Alpha and gamma are for a logit scale of 100 and are rescaled to the backbone's.
"""

import math
from typing import Literal

import torch
from torch import nn

from adaptkit import Pooled, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Positive, Share, Tries, Views, Weight
from adaptkit.methods.kernels import kernel_sums, row_blocks
from adaptkit.methods.ops import class_sums, ends, steps_from
from adaptkit.methods.search import Linear

ROOM = 2**26  # similarities held at a time


class CapsAdapter(ZeroShot):
    """Zero-shot plus votes of support images and of their captions, by similarity."""

    scope = "set"
    alpha: Weight = 0.1  # weight of similar features, for a logit scale of 100
    beta: Weight = 1.0  # sharpness of that similarity
    delta: Share = 0.0  # share of the caption in a key
    gamma: Weight = 0.1  # weight of similar class distributions, for a logit scale of 100
    temperature: Positive = 0.5  # of the softmax over cosines that makes a class distribution
    search_low: tuple[Weight, Weight, Weight] = (0.1, 1, 0.1)  # lower ends of alpha, beta and gamma
    search_high: tuple[Positive, Positive, Positive] = (50, 50, 30)  # their upper ends, never reached
    search_steps: tuple[Tries, Tries, Tries, Tries] = (5, 10, 6, 5)  # values of alpha, beta, delta (0 to 1) and gamma
    captions: Literal["class", "given"] = "class"
    views: Views = 10  # random views per support image
    augment: str = "crop-flip"
    as_released: bool = False  # with the slips above

    def support_needs(self):
        captions = {"captions": Pooled()} if self.captions == "given" else {}
        return {"views": Pooled(views=self.views, augment=self.augment, unit=False)} | captions

    def grid(self):
        a, b, d, c = self.search_steps
        alphas, betas, gammas = map(steps_from, self.search_low, self.search_high, (a, b, c))
        return {"alpha": alphas, "beta": betas, "delta": tuple(i / (d - 1) for i in range(d)), "gamma": gammas}

    def fit(self, task):
        super().fit(task)
        task.require_support("caps-adapter")
        self.labels = nn.Buffer(task.support.labels)
        self.images = nn.Buffer(unit(task.support.views.mean(1)))  # (S, D)
        self.sentences = nn.Buffer(task.support.captions if self.captions == "given" else self.text[self.labels])

    def forward(self, batch):
        x = batch.x
        votes = torch.cat([self.sums((self.beta * (a - 1)).exp()) for a in self.affinities(x, self.delta)])
        likeness = self.likeness(*self.divergence(x), ends(self.affinities(x, self.delta)))
        return self.zero_shot(x) + self.alpha * votes + self.gamma * likeness

    def keys(self, delta):
        """Images and their captions, mixed, ``(S, D)``."""
        return torch.lerp(self.images, self.sentences, delta)

    def affinities(self, x, delta):
        """Products with the keys, ``(B, S)``, in blocks of rows."""
        return (part @ self.keys(delta).T for part in x.split(max(1, ROOM // len(self.images))))

    def sums(self, similarity):
        """Similarities ``(B, S)`` summed over each class, in units of the logits, ``(B, C)``."""
        return self.backbone.logit_scale / 100 * class_sums(similarity.T, self.labels, len(self.text)).T

    def distribution(self, x):
        """Log-probabilities, ``(B, C)``, plus log C, so that little is lost in single precision."""
        scores = (x if self.as_released else x @ self.text.T).double() / self.temperature
        return (scores.log_softmax(-1) + math.log(scores.shape[1])).to(x)

    def divergences(self, x):
        """Kullback-Leibler divergence of each image's distribution from each row's, ``(B, S)``, blocks of rows."""
        whole, keys = len(x) // 10 * 10 if self.as_released else len(x), self.distribution(self.images)
        for rows in torch.arange(len(x), device=x.device).split(max(1, ROOM // len(keys))):
            log_p = self.distribution(x[rows])
            p = log_p.exp() / log_p.shape[1]
            yield ((p * log_p).sum(-1, keepdim=True) - p @ keys.T) * (rows < whole)[:, None]

    def divergence(self, x):
        """Divergences summed over each class, ``(N, C)``, and their ends."""
        sums, spans = zip(*((self.sums(kl), ends([kl])) for kl in self.divergences(x)), strict=True)
        return torch.cat(sums), ends(spans)

    def likeness(self, sums, span, to):
        """Minus the divergences, moved to the range of the affinities, as class sums, ``(N, C)``."""
        slope = torch.where(span[1] > span[0], (to[1] - to[0]) / (span[1] - span[0]), 0)
        counts = self.sums(torch.ones_like(self.images[:, :1].T))  # (1, C)
        return -(slope * sums + (to[0] - slope * span[0]) * counts)

    def sweep(self, val):
        betas, deltas = self.grid()["beta"], self.grid()["delta"]
        classes, scale = len(self.text), self.backbone.logit_scale / 100
        divergence = self.divergence(val.x)
        likeness = [self.likeness(*divergence, ends(self.affinities(val.x, delta))) for delta in deltas]
        for x, *likes in zip(*(row_blocks(rows, classes) for rows in (val.x, *likeness)), strict=True):
            sums = [kernel_sums(self.keys(delta) @ x.T, self.labels, classes, betas, scale) for delta in deltas]
            for votes in zip(*sums, strict=True):  # (k, n, C) of each delta
                slopes = {"alpha": torch.stack(votes, 1).flatten(0, 1), "gamma": torch.stack(likes * len(votes[0]))}
                yield Linear(self.zero_shot(x), slopes)


@hookimpl
def methods():
    return {"caps-adapter": CapsAdapter}
