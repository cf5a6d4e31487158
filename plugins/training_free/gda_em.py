"""Gaussian discriminant analysis without labels: a mixture fitted to the queries by EM, added to the zero-shot logits.

Source: Wang et al., A Hard-to-Beat Baseline for Training-Free CLIP-based Adaptation, arXiv:2402.04087.
Deviations: no code was released for the unsupervised part. This is EM as in textbooks for Gaussians that share one
covariance, from the zero-shot posteriors, with estimated class frequencies and a ridge where the paper shrinks; the
queries themselves are the unlabelled images. Alpha is not searched, since that takes labels; at 1 the log-posterior of
the mixture counts as much as the zero-shot one.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from adaptkit import ZeroShot, hookimpl
from adaptkit.io.ranges import Epsilon, Steps, Weight


class GDAEM(ZeroShot):
    """Zero-shot plus a Gaussian mixture that is fitted to all queries, without labels."""

    scope = "set"

    alpha: Weight = 1.0  # weight of the mixture's log-posterior, nats
    iterations: Steps = 10  # of EM, after the first M-step
    ridge: Epsilon = 1e-3  # added to the diagonal of the covariance

    def forward(self, batch):
        x = batch.x
        return self.zero_shot(x) + self.alpha * self.mixture(x).log_joint(x).log_softmax(-1)

    def mixture(self, x):
        """The mixture after `iterations` rounds on ``x``, ``(N, D)``."""
        fitted = maximise(x, self.zero_shot(x).softmax(-1), self.ridge)
        for _ in range(self.iterations):
            fitted = maximise(x, fitted.log_joint(x).softmax(-1), self.ridge)
        return fitted


@dataclass(frozen=True)
class Mixture:
    """Gaussians with one covariance: ``priors`` ``(C,)``, ``means`` ``(C, D)``, ``covariance`` ``(D, D)``."""

    priors: Tensor
    means: Tensor
    covariance: Tensor

    def log_joint(self, x: Tensor) -> Tensor:
        """Log density of each row of ``(N, D)`` with each class, ``(N, C)``, nats."""
        root = torch.linalg.cholesky(self.covariance)  # (D, D)
        centre = self.priors @ self.means  # taken off both, so that float32 does not cancel
        x, means = (torch.linalg.solve_triangular(root, (rows - centre).T, upper=False).T for rows in (x, self.means))
        distance = x.square().sum(-1, keepdim=True) - 2 * x @ means.T + means.square().sum(-1)  # (N, C), Mahalanobis
        volume = x.shape[1] * math.log(2 * math.pi) + 2 * root.diagonal().log().sum()
        return self.priors.log() - (distance + volume) / 2


def maximise(x: Tensor, posterior: Tensor, ridge: float) -> Mixture:
    """M-step: the mixture that explains ``x`` ``(N, D)`` best when its classes are ``posterior`` ``(N, C)``."""
    mass = posterior.sum(0).clamp_min(torch.finfo(x.dtype).tiny)  # (C,)
    means = posterior.T @ x / mass[:, None]
    centre = x.mean(0)
    x, between = x - centre, means - centre
    covariance = (x.T @ x - (mass * between.T) @ between) / len(x)  # total less between classes
    return Mixture(mass / mass.sum(), means, covariance + ridge * torch.eye(x.shape[1]).to(x))


@hookimpl
def methods():
    return {"gda-em": GDAEM}
