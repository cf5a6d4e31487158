"""Gaussians of the classes, from the surest images seen so far, with the zero-shot probabilities as their priors.

Source: Fuchs et al., Online Gaussian Test-Time Adaptation of Vision-Language Models, arXiv:2501.04352.
Deviations: the released code divides each mean by the number of slots, taken or not, and lets no image enter whose
entropy is that of the uniform distribution; ``as_released=True`` does both. It enters batches of 32 before it answers
them (``batch: 32``); ours are single images. Memory is float32 instead of half precision. As released, a class's only
image counts in the covariance with its deviation from the class's text, and all deviations are centred once more.
"""

import math
from bisect import bisect_right

import torch

from adaptkit import ZeroShot, hookimpl
from adaptkit.io.ranges import Positive, Size
from adaptkit.methods.class_cache import ClassCache
from adaptkit.methods.class_moments import changes
from adaptkit.methods.ops import entropy
from adaptkit.methods.running_gaussian import RunningGaussian


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
        self.cache = ClassCache(self.text, self.capacity)
        self.gaussian = RunningGaussian(self.text)

    def forward(self, batch):
        return self.answer(batch.x, max(1, len(batch)))

    def replay(self, stream):
        size = self.batch * max(1, 64 // self.batch)
        return torch.cat([self.answer(x, self.batch) for x in stream.x.split(size)])

    def answer(self, x, together):
        """Logits of images ``(B, D)``, of which so many at once enter before they are answered, ``(B, C)``."""
        logits = self.zero_shot(x)
        h = entropy(logits)
        if self.as_released:
            h = h.where(h < math.log(logits.shape[1]), torch.inf)
        entered, slots = self.cache.enter(logits.argmax(-1), h, x), self.capacity if self.as_released else 0
        made = changes(entered, self.text, self.least, slots, self.unit_means) if entered else None
        past = [
            bisect_right(made.number, i // together * together + together - 1) if made else 0 for i in range(len(x))
        ]
        return logits - 0.5 * self.tau * self.gaussian.advance(x, made, past).to(logits)


@hookimpl
def methods():
    return {"oga": OGA}
