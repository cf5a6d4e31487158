"""LP++: a linear probe plus the class's own share of the text's cosines, with step sizes from the data.

Source: Huang et al., LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP, arXiv:2404.02285.
Deviations: in the release the weights start from class sums, the bias from random numbers, and the gradient of alpha is
never cleared, so that each of its steps takes the sum over all iterations so far: ``as_released=True``. Here they start
from class means, as the paper has it, and from zero, and a step takes the gradient of its iteration. Several views of
an image are samples of their own; the release has one. Without validation images the last iterate is kept.
Alpha starts at a constant that the paper chose for CLIP's cosines; the logit scale of the backbone is not used.
"""

import torch
from torch import nn

from adaptkit import Pooled, ZeroShot, hookimpl
from adaptkit.io.ranges import Share, Size, Steps, Views, Weight
from adaptkit.methods.ops import class_sums


class LPPlusPlus(ZeroShot):
    """A linear probe plus each class's learned share of the zero-shot cosines.

    ``W x + b + alpha * (text x)``: gradient descent on all images; the iterate best on validation images is kept.
    """

    iterations: Steps = 300
    momentum: Share = 0.9  # of W and b
    every: Size = 10  # iterations between two steps of alpha
    start_share: Weight = 250.0  # first alpha, in units of the mean cosine of an image and its class
    views: Views = 1  # random views per support image
    augment: str = "crop-flip"
    as_released: bool = False  # with the slips above

    def support_needs(self):
        return {"views": Pooled(views=self.views, augment=self.augment)}

    def fit(self, task):
        super().fit(task)
        views = task.support.views  # (S, V, D)
        x, labels = views.flatten(0, 1), task.support.labels.repeat_interleave(views.shape[1])  # (N, D), (N,)
        self.start(x, labels)
        self.solve(x, labels, task.val)

    def start(self, x, labels):
        """First values and step sizes."""
        counts = labels.bincount(minlength=len(self.text)).to(x)
        weight, bias = class_sums(x, labels, len(self.text)), torch.zeros_like(counts)  # (C, D), (C,)
        if self.as_released:
            bias.uniform_(-(x.shape[1] ** -0.5), x.shape[1] ** -0.5)
        else:
            weight /= counts.clamp_min(1)[:, None]
        own = class_sums((x * self.text[labels]).sum(1), labels, len(self.text))[counts > 0] / counts[counts > 0]
        self.weight, self.bias = nn.Buffer(weight), nn.Buffer(bias)
        self.alpha = nn.Buffer(torch.full_like(counts, float(self.start_share * own.mean())))  # (C,)
        gram = (x.T @ x).double()
        self.rate = 4 * len(x) / float(torch.linalg.eigvalsh(gram)[-1])  # of W and b
        self.rate_alpha = len(x) / (4 * float((x @ self.text.T).square().sum(0).max()))

    def solve(self, x, labels, val):
        """Descend, and keep the last of the iterates that are best on validation images."""
        best, kept, cosines = -1, None, None if val is None else val.x @ self.text.T
        for _ in self.descend(x, labels):
            if val is not None:
                right = int((self.logits(val.x, cosines).argmax(-1) == val.labels).sum())
                if right >= best:
                    best, kept = right, [t.clone() for t in (self.weight, self.bias, self.alpha)]
        if kept:
            self.weight, self.bias, self.alpha = map(nn.Buffer, kept)

    def descend(self, x, labels):
        """Take a step, and yield the logits before it ``(N, C)`` and the gradient that alpha's next step will take."""
        cosines, rows = x @ self.text.T, torch.arange(len(x)).to(labels)
        speed = [torch.zeros_like(self.weight), torch.zeros_like(self.bias)]
        gradient = torch.zeros_like(self.alpha)
        for i in range(1, self.iterations + 1):
            logits = self.logits(x, cosines)
            error = logits.softmax(-1)
            error[rows, labels] -= 1
            error /= len(x)  # gradient of the mean cross-entropy, by the logits
            for value, v, g in zip((self.weight, self.bias), speed, (error.T @ x, error.sum(0)), strict=True):
                value -= self.rate * v.mul_(self.momentum).add_(g)
            if self.as_released or i % self.every == 0:
                now = error.mul_(cosines).sum(0)
                gradient = gradient + now if self.as_released else now
            if i % self.every == 0:
                self.alpha -= self.rate_alpha * gradient
            yield logits, gradient

    def forward(self, batch):
        return self.logits(batch.x, batch.x @ self.text.T)

    def logits(self, x, cosines):
        """``(B, D)`` and ``(B, C)`` to ``(B, C)``."""
        return torch.addmm(self.bias, x, self.weight.T) + self.alpha * cosines


@hookimpl
def methods():
    return {"lp-plus-plus": LPPlusPlus}
