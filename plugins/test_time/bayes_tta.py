"""Gaussians of the classes, moved by each image's zero-shot probabilities, with one covariance or with one for each.

Source: Cui et al., BayesTTA: Continual-Temporal Test-Time Adaptation for Vision-Language Models via Gaussian
Discriminant Analysis, arXiv:2507.08607.
Deviations: the part without gradients; the paper then moves the tower's norms a step towards these answers. Its batches
of 128 images enter before any is answered (``batch: 128``); ours are single images. Box's test (1949), by chi-square,
decides on the `first` images; until then covariances are shared. The release's F stays below d2 / d1: on its 128 images
it shares them for three classes and more. They are inverted in double precision; a pseudo-inverse drops directions
that images have not reached. The Gaussian term is rescaled from logits of scale 100. Not shared: ``(C, D, D)`` numbers.
"""

import math
from typing import Literal

import torch

from adaptkit import ZeroShot, hookimpl
from adaptkit.io.ranges import Epsilon, Positive, Share, Size, Weight

AXES = 10  # principal axes that Box's test looks at


class BayesTTA(ZeroShot):
    """Zero-shot plus the log-densities of Gaussians estimated from all images so far."""

    scope = "stream"

    alpha: Weight = 1.0  # weight of the log-densities, for a logit scale of 100
    epsilon: Epsilon = 1e-4  # share of the identity in covariances
    sigma: Positive = 0.1  # its standard deviation
    covariance: Literal["tested", "shared", "own"] = "tested"  # one for all classes, or one for each
    level: Share = 0.05  # significance from which covariances are said to differ
    first: Size = 128  # images that the test looks at
    batch: Size = 1  # images that enter before any of them is answered

    def fit(self, task):
        super().fit(task)
        self.register_buffer("seen", self.text[:0])  # images that the test waits for
        self.register_buffer("decided", torch.tensor(self.covariance != "tested"))
        self.begin(1 if self.covariance != "own" else len(self.text))

    def begin(self, matrices):
        """No image has come yet; scatters are one matrix for all classes, or one for each."""
        self.register_buffer("means", self.text.double())  # (C, D)
        self.register_buffer("counts", self.means.new_ones(len(self.means)))  # the text is the first image of a class
        self.register_buffer("scatters", self.means.new_zeros(matrices, *2 * self.means.shape[1:]))

    def forward(self, batch):
        return self.answer(batch.x)

    def replay(self, stream):
        return torch.cat([self.answer(x) for x in stream.x.split(self.batch)])

    def answer(self, x):
        """Logits of images that enter together, ``(B, D)`` to ``(B, C)``."""
        logits = self.zero_shot(x)
        self.enter(x)
        if not self.decided:
            self.seen = torch.cat([self.seen, x])
            if len(self.seen) >= self.first:
                self.decide()
        return logits + self.alpha * self.backbone.logit_scale / 100 * self.density(x.double()).to(logits)

    def decide(self):
        """Test, and count again what has come where each class is to have a matrix of its own."""
        seen, self.seen, self.decided = self.seen, self.seen[:0], torch.ones_like(self.decided)
        if not alike(seen.double(), self.zero_shot(seen).softmax(-1).double(), self.level):
            self.begin(len(self.text))
            for x in seen.split(self.batch):
                self.enter(x)

    def enter(self, x):
        """Count images ``(B, D)`` by their zero-shot probabilities, with deviations from the means as they were."""
        p, x = self.zero_shot(x).softmax(-1).double(), x.double()
        for share, row in zip(p, x, strict=True):
            away = row - self.means  # (C, D)
            if len(self.scatters) == 1:
                self.scatters = self.scatters + (share[:, None] * away).T @ away
            else:
                self.scatters = self.scatters.baddbmm((share[:, None] * away)[..., None], away[:, None])
        counts = self.counts + p.sum(0)
        self.means, self.counts = (self.counts[:, None] * self.means + p.T @ x) / counts[:, None], counts

    def density(self, x):
        """Log-densities with a uniform prior, without the constant of 2 pi, ``(B, C)``."""
        mass = (self.counts - 1).view(-1, 1, 1)  # of images alone; probabilities of one image sum to 1
        each = self.scatters / (mass.sum() if len(self.scatters) == 1 else mass.clamp_min(1e-12))
        each = (1 - self.epsilon) * each + self.epsilon * self.sigma**2 * torch.eye(x.shape[1]).to(x)
        root = torch.linalg.cholesky(each)  # (C, D, D), or (1, D, D)
        away = [row - self.means for row in x]  # B times (C, D)
        away = [rows.T[None] if len(root) == 1 else rows[..., None] for rows in away]  # columns for each matrix
        far = [torch.linalg.solve_triangular(root, rows, upper=False).square().sum(1).flatten() for rows in away]
        return -0.5 * torch.stack(far) - root.diagonal(dim1=-2, dim2=-1).log().sum(-1) - math.log(len(self.means))


def alike(x, p, level):
    """Whether Box's test keeps the hypothesis of one covariance, for images ``(N, D)`` in classes by ``(N, C)``."""
    from scipy.stats import chi2

    n = p.sum(0)  # (C,)
    if min(x.shape) < AXES or len(n) == 1 or float(n.min()) <= AXES + 1:
        return True
    x = x - x.mean(0)
    z = x @ torch.linalg.svd(x, full_matrices=False).Vh[:AXES].T  # (N, 10)
    away, free = z[:, None] - (p.T @ z / n[:, None]), n - 1  # (N, C, 10), (C,)
    own = torch.einsum("nc,ncd,nce->cde", p, away, away) / free[:, None, None]
    pooled = (free[:, None, None] * own).sum(0) / free.sum()
    signs, own_log = torch.linalg.slogdet(own)
    sign, pooled_log = torch.linalg.slogdet(pooled)
    if min(float(signs.min()), float(sign)) <= 0:
        return True
    d, more = AXES, len(n) - 1
    scale = ((1 / free).sum() - 1 / free.sum()) * (2 * d * d + 3 * d - 1) / (6 * (d + 1) * more)
    value = (1 - scale) * (free.sum() * pooled_log - (free * own_log).sum())
    return bool(chi2.sf(float(value), d * (d + 1) * more / 2) >= level)


@hookimpl
def methods():
    return {"bayes-tta": BayesTTA}
