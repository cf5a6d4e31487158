"""Gaussian discriminant analysis on frozen features, added to the zero-shot logits.

Source: Wang et al., A Hard-to-Beat Baseline for Training-Free CLIP-based Adaptation, arXiv:2402.04087.
Deviations: ``gda`` none known; on ImageNet the authors' script chooses alpha on the test set, which cannot happen here.
Their grid of alpha is for a logit scale of 100 and is rescaled to the backbone's.
``gda-base-to-new`` follows their script where it differs from the paper's formulas: base classes use the plain
pseudo-inverse of the mean of the classes' covariances. A class without support images is a new one; one with a single
row has no covariance and is left out of that mean (theirs gives NaN). Base and new classes have a precision each, so
their logits are comparable within a group only, which is how the protocol scores them. Their alpha is chosen among base
classes: give `val` to a task of base classes, and the alpha it finds to a task of all.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from adaptkit import Pooled, ZeroShot, hookimpl
from adaptkit.io.ranges import Count, Size, Views, Weight
from adaptkit.methods.search import Linear


class GDA(ZeroShot):
    """Zero-shot plus a linear classifier from class means and one shared covariance.

    The covariance is shrunk. No training.
    """

    alpha: Weight = 0.1  # weight of the Gaussian logits, for a logit scale of 100
    views: Views = 10  # random views per support image, each a sample of its own
    augment: str = "crop-flip"
    priors: Literal["equal", "support"] = "equal"  # of classes; the support's are for queries as imbalanced as it is

    def support_needs(self):
        return {"views": Pooled(views=self.views, augment=self.augment)}

    def grid(self):
        return {"alpha": (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)}

    def fit(self, task):
        super().fit(task)
        views = task.support.views  # (S, V, D)
        x, labels = views.flatten(0, 1), task.support.labels.repeat_interleave(views.shape[1])  # (S * V, D), (S * V,)
        counts = labels.bincount(minlength=len(self.text))
        means = torch.zeros_like(self.text).index_add_(0, labels, x) / counts.clamp_min(1)[:, None]  # (C, D)
        means, weight, bias = self.solve(x, labels, means, counts)
        if self.priors == "support":
            bias = bias + (len(counts) * counts.clamp_min(1) / counts.sum()).log()  # the others were 1 / C
        self.means, self.weight, self.bias = map(nn.Buffer, (means, weight, bias))

    def solve(self, x, labels, means, counts):
        """Means and weight, ``(C, D)``, and bias, ``(C,)``."""
        if not counts.all():
            raise ValueError(f"gda must have support images of every class; got none of class {int(counts.argmin())}")
        return means, *linear(means, shrunk_precision(x - means[labels]))

    def forward(self, batch):
        weight, bias = self.text + self.alpha / 100 * self.weight, self.alpha / 100 * self.bias  # one linear classifier
        return self.backbone.logits(batch.x, weight) + self.backbone.logit_scale * bias

    def gaussian(self, x):
        """Log-posterior up to a term that all classes share, in units of the logits, ``(B, C)``."""
        return self.backbone.logit_scale / 100 * (x @ self.weight.T + self.bias)

    def sweep(self, val):
        x = val.x
        yield Linear(self.zero_shot(x), {"alpha": self.gaussian(x)})


class GDABaseToNew(GDA):
    """`GDA` that also covers classes without images, by Gaussians made from their text."""

    neighbours: Size = 64  # support rows nearest to a new class's text, k
    copies: Count = 16  # of the text itself in a new class's mean

    def solve(self, x, labels, means, counts):
        self.rows, base, new = nn.Buffer(x), counts > 0, counts == 0  # (S * V, D), (C,), (C,)
        weight, bias = torch.zeros_like(means), torch.zeros_like(means[:, 0])
        precision = torch.linalg.pinv(mean_covariance(x - means[labels], labels, counts))
        weight[base], bias[base] = linear(means[base], precision)
        if new.any():
            means[new], precision = imagine(x, self.text[new], self.neighbours, self.copies)
            weight[new], bias[new] = linear(means[new], precision)
        return means, weight, bias

    def retarget(self, task):
        ZeroShot.fit(self, task)
        means, precision = imagine(self.rows, self.text, self.neighbours, self.copies)
        self.means, (self.weight, self.bias) = nn.Buffer(means), map(nn.Buffer, linear(means, precision))


def linear(means: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """Weight ``(C, D)`` and bias ``(C,)`` of Gaussians with equal priors, from ``(C, D)`` and ``(D, D)``."""
    weight = means @ precision
    return weight, -0.5 * (weight * means).sum(-1) - math.log(len(means))


def shrunk_precision(deviations: Tensor) -> Tensor:
    """Inverse covariance of features with their class means removed, ``(N, D)`` to ``(D, D)``.

    The ridge is the covariance's own trace (Kubokawa and Srivastava, 2008), so any N will do, and the sum is positive
    definite: Cholesky gives the pseudo-inverse of the paper.
    """
    n, d = deviations.shape
    scatter = deviations.T @ deviations  # (N - 1) times the covariance
    trace = scatter.trace() / max(n - 1, 1)
    if trace == 0:  # a single sample of each class
        return scatter
    return d * torch.cholesky_inverse(torch.linalg.cholesky(scatter + trace * torch.eye(d).to(scatter)))


def mean_covariance(deviations: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Unweighted mean of the covariances of all classes that have two rows or more, ``(D, D)``."""
    if counts.max() < 2:
        raise ValueError("gda-base-to-new must have two support rows of some class; got one each; use more views")
    return (deviations / (counts[labels, None] - 1).clamp_min(1)).T @ deviations / (counts > 1).sum()


def imagine(x: Tensor, text: Tensor, neighbours: int, copies: int) -> tuple[Tensor, Tensor]:
    """Means ``(C, D)`` and precision ``(D, D)`` of classes known by ``text`` ``(C, D)`` alone, from images ``x``."""
    if len(x) < neighbours:
        raise ValueError(f"neighbours must be at most the support rows, {len(x)}; got {neighbours}")
    nearest = x[(text @ x.T).topk(neighbours).indices]  # (C, k, D)
    means = (nearest.sum(1) + copies * text) / (neighbours + copies)
    return means, sum(shrunk_precision(rows - t) for rows, t in zip(nearest, text, strict=True)) / len(text)


@hookimpl
def methods():
    return {"gda": GDA, "gda-base-to-new": GDABaseToNew}
