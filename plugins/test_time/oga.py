"""Gaussians of the classes, from the surest images seen so far, with the zero-shot probabilities as their priors.

Source: Fuchs et al., Online Gaussian Test-Time Adaptation of Vision-Language Models, arXiv:2501.04352.
Deviations: the released code divides each mean by the number of slots, taken or not, and lets no image enter whose
entropy is that of the uniform distribution; ``as_released=True`` does both. It enters batches of 32 before it answers
them (``batch: 32``); ours are single images. Memory is float32 instead of half precision. As released, a class's only
image counts in the covariance with its deviation from the class's text, and all deviations are centred once more.
"""

import math

import torch
from torch import nn

from adaptkit import ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Positive, Size
from adaptkit.methods.class_cache import ClassCache
from adaptkit.methods.ops import entropy


class OGA(ZeroShot):
    """Gaussians of the classes from the surest images so far, with zero-shot as prior.

    The logits are log-posteriors, up to a term that all classes share.
    """

    scope = "stream"

    capacity: Size = 8  # images held per class, those of lowest zero-shot entropy
    tau: Positive = 0.05  # temperature of the Gaussian log-likelihood, which it multiplies
    least: Size = 2  # images from which a class has a mean of its own, not its text
    unit_means: bool = False  # whether those means are scaled to unit norm, an option of the release
    batch: Size = 1  # images that enter before any of them is answered
    as_released: bool = False

    def fit(self, task):
        super().fit(task)
        dim = self.text.shape[1]
        self.cache = ClassCache(self.text, self.capacity)
        self.means = nn.Buffer(self.text.clone())  # (C, D)
        self.scatter = nn.Buffer(torch.zeros(dim, dim).to(self.text).double())  # of the deviations from the means
        self.drift = nn.Buffer(torch.zeros(dim).to(self.scatter))  # their sum
        self.precision = nn.Buffer(dim * torch.eye(dim).to(self.text))

    def forward(self, batch):
        logits = self.zero_shot(batch.x)  # (B, C)
        labels, h = logits.argmax(-1), entropy(logits)
        if self.as_released:
            h = h.where(h < math.log(logits.shape[1]), torch.inf)
        before, old = self.cache.entropy.clone(), {int(c): self.moments(c) for c in labels.unique()}
        self.cache.admit(labels, h, batch.x)
        changed = [c for c in old if not torch.equal(before[c], self.cache.entropy[c])]
        for c in changed:
            self.means[c], scatter, drift = self.moments(c)
            self.scatter += scatter - old[c][1]
            self.drift += drift - old[c][2]
        if changed:
            self.invert()
        return logits - 0.5 * self.tau * self.distances(batch.x)

    def replay(self, stream):
        return torch.cat([self(stream[i : i + self.batch]) for i in range(0, len(stream), self.batch)])

    def distances(self, x):
        """Squared distances of images ``(B, D)`` from the means under the precision, ``(B, C)``."""
        return torch.stack([((row - self.means) @ self.precision * (row - self.means)).sum(-1) for row in x])

    def moments(self, label):
        """Mean of a class's images ``(D,)``, and of their deviations the scatter, ``(D, D)``, and the sum, ``(D,)``."""
        held, mean = self.cache.keys[label][self.cache.held[label]], self.text[label]  # (K, D)
        if len(held) >= self.least:
            mean = held.sum(0) / (self.capacity if self.as_released else len(held))
            mean = unit(mean) if self.unit_means else mean
        off = (held - mean).double()
        return mean, off.T @ off, off.sum(0)

    def invert(self):
        """Precision of the shared covariance: shrunk, as in GDA, while there are no more than 4 D images."""
        counts = self.cache.held.sum(1)
        n, dim = int(counts.sum()), len(self.scatter)
        scatter = self.scatter - torch.outer(self.drift, self.drift) / n
        if counts.max() <= 2 or scatter.trace() < 1e-9:  # less is rounding
            return
        ridge = scatter + scatter.trace() / (n - 1) * torch.eye(dim).to(scatter)
        few = n <= 4 * dim
        inverse = dim * torch.linalg.inv(ridge) if few else (n - 1) * torch.linalg.pinv(scatter, hermitian=True)
        self.precision = inverse.to(self.text)


@hookimpl
def methods():
    return {"oga": OGA}
