"""A linear classifier from the prompts' distribution, added to another's logits, then freed of a bias in its labels.

Source: Zhu et al., Enhancing Zero-Shot Vision Models by Label-Free Prompt Distribution Learning and Bias Correcting,
arXiv:2410.19294.
Deviations: the covariance is that of the released code, diagonal and drawn towards the identity, where the paper
subtracts the prompts' second moment from the images'. The release adds logits of InMaP; here they are the `base`'s. As
in the paper, and not as released, the bias is that of the fused logits, and what is subtracted is the latest estimate
and not the sum of all. A class that no image is assigned to has the mean probabilities of all images. As released,
images whose two best logits are within 1/C do not count, and the eigenvector is a power iteration from equal shares,
stopped once a step moves it by less than 0.001: short of it, where classes are seldom confused. At most ten rounds.
"""

import torch
from torch import nn

from adaptkit import OverBase, Pooled, hookimpl, predict, unit
from adaptkit.io.ranges import Share, Steps
from adaptkit.methods.ops import class_sums


class Frolic(OverBase):
    """A base's logits plus a classifier from the prompts' distribution, freed of bias.

    Transductive: covariance, temperature and bias are estimated on all queries. Nothing is tuned.
    """

    scope = "set"

    shrink: Share = 0.9  # weight of the identity in the covariance, lambda
    rounds: Steps = 10  # of bias correction, at most

    def needs(self):
        return {"x": Pooled()}

    def fit(self, task):
        self.prompts = nn.Buffer(torch.cat(task.text_per_prompt))  # (P, D)
        self.prototypes = nn.Buffer(unit(torch.stack([rows.mean(0) for rows in task.text_per_prompt])))  # z, (C, D)

    def forward(self, batch):
        logits = predict(self.base, batch)
        gaussian = self.gaussian(batch.x)
        fused = logits + gaussian / temperature(gaussian, logits)
        return fused - self.bias(fused).log()

    def gaussian(self, x):
        """Logits of Gaussians about the prototypes, under one diagonal covariance, ``(N, C)``."""
        variance = torch.cat([x, self.prompts]).var(0)
        weight = self.prototypes / ((1 - self.shrink) * variance + self.shrink)
        return x @ weight.T - 0.5 * (self.prototypes * weight).sum(1)

    def bias(self, logits):
        """How often the classifier would say each class if all were as frequent as it says, ``(C,)`` adding up to 1."""
        p, classes = logits.softmax(-1), logits.shape[1]
        prior = torch.full_like(p[0], 1 / classes)
        for _ in range(self.rounds):
            corrected = logits - prior.log()
            top = corrected.topk(2).values
            sure = top[:, 0] - top[:, 1] > 1 / classes
            labels = corrected.argmax(1)
            counts = labels[sure].bincount(minlength=classes)[:, None]
            means = torch.where(counts > 0, class_sums(p[sure], labels[sure], classes) / counts.clamp_min(1), p.mean(0))
            before, prior = prior, stationary(means)
            if (prior - before).abs().sum() < 1e-3:
                break
        return prior


def temperature(logits, like, steps=60):
    """What to divide logits by, so that their mean best probability is that of others; by bisection."""
    aim = like.softmax(-1).amax(-1).mean()
    low, high = torch.tensor([1e-6, 1e6]).to(logits).log()
    for _ in range(steps):
        middle = (low + high) / 2
        surer = (logits / middle.exp()).softmax(-1).amax(-1).mean() > aim
        low, high = torch.where(surer, middle, low), torch.where(surer, high, middle)
    return ((low + high) / 2).exp()


def stationary(means, steps=100):
    """The prior ``(C,)`` that a row-stochastic ``(C, C)`` leaves as it is, by power iteration from the uniform one."""
    prior = torch.full_like(means[0], 1 / len(means))
    for _ in range(steps):
        before, prior = prior, prior @ means
        if (prior - before).abs().sum() < 1e-3:
            break
    return (prior / prior.sum()).clamp_min(1e-12)


@hookimpl
def methods():
    return {"frolic": Frolic}
