"""Gaussians of the classes, from the surest images seen so far, with the zero-shot probabilities as their priors.

Source: Fuchs et al., Online Gaussian Test-Time Adaptation of Vision-Language Models, arXiv:2501.04352.
Deviations: the released code divides each mean by the number of slots, taken or not, unless it scales means to unit
norm, and counts the distance of a class's only image from its text into the covariance; ours divides by the images
there are, and leaves such classes out. It enters batches of 32 before it answers them; ours are single images.
"""

import torch
from torch import nn

from adaptkit import ZeroShot, hookimpl
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

    def fit(self, task):
        super().fit(task)
        dim = self.text.shape[1]
        self.cache = ClassCache(self.text, self.capacity)
        self.means = nn.Buffer(self.text.clone())  # (C, D)
        self.scatter = nn.Buffer(torch.zeros(dim, dim).to(self.text).double())  # about the means
        self.precision = nn.Buffer(dim * torch.eye(dim).to(self.text))

    def forward(self, batch):
        logits = self.zero_shot(batch.x)  # (1, C)
        label = logits.argmax()
        before, (_, old) = self.cache.entropy[label].clone(), self.moments(label)
        self.cache.admit(label[None], entropy(logits), batch.x)
        if not torch.equal(before, self.cache.entropy[label]):
            self.means[label], new = self.moments(label)
            self.scatter += new - old
            self.invert()
        deviations = batch.x - self.means
        return logits - 0.5 * self.tau * (deviations @ self.precision * deviations).sum(-1)

    def moments(self, label):
        """Mean ``(D,)`` of a class's images, and the scatter about it, ``(D, D)``."""
        held = self.cache.keys[label][self.cache.held[label]]  # (K, D)
        if len(held) < self.least:
            return self.text[label], torch.zeros_like(self.scatter)
        centred = (held - held.mean(0)).double()
        return held.mean(0), centred.T @ centred

    def invert(self):
        """Precision of the shared covariance: shrunk, as in GDA, while there are no more than 4 D images."""
        counts = self.cache.held.sum(1)
        n, dim = int(counts[counts >= self.least].sum()), len(self.scatter)
        if counts.max() <= 2 or not self.scatter.any():
            return
        trace = self.scatter.trace() / (n - 1)
        ridge = self.scatter + trace * torch.eye(dim).to(self.scatter)
        few = n <= 4 * dim
        inverse = dim * torch.linalg.inv(ridge) if few else (n - 1) * torch.linalg.pinv(self.scatter, hermitian=True)
        self.precision = inverse.to(self.text)


@hookimpl
def methods():
    return {"oga": OGA}
