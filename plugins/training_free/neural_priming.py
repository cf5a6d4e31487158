"""Class embeddings are mixed with the mean of images that are recalled for each class, and of labelled ones.

Source: Wallingford et al., Neural Priming for Sample-Efficient Adaptation, arXiv:2306.10191.
Deviations: the paper recalls images of the pre-training set whose captions name a class; here that is the task's pool,
if it has one, each of its images being of the class that zero-shot gives it. Support images, if there are any, count
like those. Mixtures have unit norm, and a class without images keeps its text; the release leaves mixtures as long as
they come out, and such a class only alpha of its text, which lowers its logits: ``as_released=True``. Images that are
recalled for the test images themselves are not here, nor is training from this start.
"""

import torch

from adaptkit import Pooled, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Share
from adaptkit.methods.ops import class_sums


class NeuralPriming(ZeroShot):
    """Zero-shot by class embeddings that are mixed with the means of a class's images."""

    alpha: Share = 0.8  # share of the text
    as_released: bool = False  # mixtures as long as they come out

    def support_needs(self):
        return {"x": Pooled()}

    def pool_needs(self):
        return self.needs()

    def fit(self, task):
        super().fit(task)
        x, labels = [task.support.x.to(self.text)], [task.support.labels]
        if task.pool is not None and len(task.pool):
            recalled = task.pool.x
            x, labels = [*x, recalled], [*labels, self.zero_shot(recalled).argmax(-1)]
        self.text = self.primed(torch.cat(x), torch.cat(labels))

    def primed(self, x, labels):
        """Class weights ``(C, D)`` from unit-norm embeddings ``(S, D)`` and classes, ``(S,)``."""
        sums = class_sums(x, labels, len(self.text))
        mixed = self.alpha * self.text + (1 - self.alpha) * unit(sums)
        return mixed if self.as_released else unit(mixed)


@hookimpl
def methods():
    return {"neural-priming": NeuralPriming}
