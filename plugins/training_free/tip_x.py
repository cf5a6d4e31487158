"""TIP-X: Tip-Adapter, and votes by how much an image's distribution over the classes is like a support image's.

Source: Udandarao et al., SuS-X: Training-Free Name-Only Transfer of Vision-Language Models, arXiv:2211.16198. The
support may be few-shot, or what was retrieved or generated for the class names.
Deviations: the default search is coarser; the release's is ``search_steps: [20, 200, 50]``. Without validation images
the weights are its lower ends. The range of all divergences is moved to that of all affinities, so an answer depends on
the other queries. The release moves the test set's divergences to the range of the validation affinities, and takes
those of its last, incomplete block of 100 rows for zero: ``as_released=True``. Alpha and gamma are for a logit scale of
100 and are rescaled to the backbone's. The votes of a class add up, so with unequal shots large classes gain.
"""

import math

import torch
from torch import nn

from adaptkit import Pooled, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Positive, Tries, Views, Weight
from adaptkit.methods.kernels import kernel_sums, row_blocks
from adaptkit.methods.ops import class_sums, ends, steps_from
from adaptkit.methods.search import Linear

ROOM = 2**24  # similarities held at a time


class TipX(ZeroShot):
    """Zero-shot plus votes of support images, by features and by class distribution.

    A cache whose support images vote by similarity of features (alpha) and of class distributions (gamma).
    """

    scope = "set"

    alpha: Weight = 0.1  # weight of similar features, for a logit scale of 100
    beta: Weight = 1.0  # sharpness of that similarity
    gamma: Weight = 0.1  # weight of similar class distributions, for a logit scale of 100
    temperature: Positive = 0.5  # of the softmax over cosines that makes a class distribution
    search_low: tuple[Weight, Weight, Weight] = (0.1, 1, 0.1)  # lower ends of alpha, beta and gamma
    search_high: tuple[Positive, Positive, Positive] = (50, 50, 30)  # upper ends, never reached
    search_steps: tuple[Tries, Tries, Tries] = (10, 20, 10)  # values of each
    views: Views = 10  # random views per support image
    augment: str = "crop-flip"
    as_released: bool = False  # with the slips above

    def support_needs(self):
        return {"views": Pooled(views=self.views, augment=self.augment, unit=False)}

    def grid(self):
        ranges = zip(self.search_low, self.search_high, self.search_steps, strict=True)
        return dict(zip(("alpha", "beta", "gamma"), (steps_from(*each) for each in ranges), strict=True))

    def fit(self, task):
        super().fit(task)
        self.keys = nn.Buffer(unit(task.support.views.mean(1)))  # (S, D)
        self.labels = nn.Buffer(task.support.labels)
        stale = self.as_released and task.val is not None
        self.stale = nn.Buffer(ends(self.affinities(task.val.x)) if stale else self.keys.new_zeros(0))

    def forward(self, batch):
        votes = torch.cat([self.votes(affinity, self.beta) for affinity in self.affinities(batch.x)])
        return self.zero_shot(batch.x) + self.alpha * votes + self.gamma * self.likeness(batch.x)

    def affinities(self, x):
        """Cosines with the keys, ``(B, S)``, in blocks of rows."""
        return (part @ self.keys.T for part in x.split(max(1, ROOM // len(self.keys))))

    def votes(self, affinity, beta):
        """Similarities ``(B, S)`` summed over each class, in units of the logits, ``(B, C)``."""
        return self.sums((beta * (affinity - 1)).exp())

    def sums(self, similarity):
        return self.backbone.logit_scale / 100 * class_sums(similarity.T, self.labels, len(self.text)).T

    def distribution(self, x):
        """Probabilities and, so that little is lost in single precision, their logarithms plus log C, ``(B, C)``."""
        cosines = x @ self.text.T
        if self.as_released:  # the release's are rounded before they are multiplied
            p = (cosines / self.temperature).softmax(-1)
            return p.double(), p.log().double()
        log_p = (cosines.double() / self.temperature).log_softmax(-1)
        return log_p.exp().to(x), (log_p + math.log(len(self.text))).to(x)

    def divergences(self, x):
        """Kullback-Leibler divergence of each key's class distribution from each row's, ``(B, S)``, blocks of rows."""
        whole, keys = len(x) // 100 * 100 if self.as_released else len(x), self.distribution(self.keys)[1]
        for rows in torch.arange(len(x), device=x.device).split(max(1, ROOM // len(self.keys))):
            p, log_p = self.distribution(x[rows])
            yield ((p * log_p).sum(-1, keepdim=True) - p @ keys.T).to(x) * (rows < whole)[:, None]

    def likeness(self, x):
        """Minus the divergences, moved to the range of the affinities and summed over each class, ``(N, C)``."""
        sums, spans = zip(*((self.sums(kl), ends([kl])) for kl in self.divergences(x)), strict=True)
        low, high = ends(spans)
        to_low, to_high = self.stale if len(self.stale) else ends(self.affinities(x))
        slope = (to_high - to_low) / (high - low)
        counts = self.sums(torch.ones_like(self.keys[:, :1].T))  # (1, C)
        return -(slope * torch.cat(sums) + (to_low - slope * low) * counts)

    def sweep(self, val):
        classes, betas, scale = len(self.text), self.grid()["beta"], self.backbone.logit_scale / 100
        for x, likeness in zip(row_blocks(val.x, classes), row_blocks(self.likeness(val.x), classes), strict=True):
            zero_shot = self.zero_shot(x)
            for votes in kernel_sums(self.keys @ x.T, self.labels, classes, betas, scale):
                yield Linear(zero_shot, {"alpha": votes, "gamma": likeness})


@hookimpl
def methods():
    return {"tip-x": TipX}
