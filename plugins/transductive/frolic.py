"""A linear classifier from the prompts' distribution, added to another's logits, then freed of a bias in its labels.

Source: Zhu et al., Enhancing Zero-Shot Vision Models by Label-Free Prompt Distribution Learning and Bias Correcting,
arXiv:2410.19294.
Deviations: the covariance is that of the released code, diagonal and drawn towards the identity, where the paper
subtracts the prompts' second moment from the images'. The release adds logits of InMaP; here they are the `base`'s. As
in the paper, and not as released, the temperature is the one at which both are as sure, the bias is that of the fused
logits, what is subtracted is the latest estimate and not the sum of all, and a class that no image is assigned to has
the mean probabilities of all images; ``as_released=True`` takes the first of the temperatures 1.1^k within a tenth of
the confidence, estimates each bias on logits that are already corrected, and gives such a class none. As released,
images whose two best logits are within 1/C do not count, and the eigenvector is a power iteration from equal shares,
stopped once a step moves it by less than 0.001: short of it, where classes are seldom confused. At most ten rounds;
as released, eleven.
"""

import torch
from torch import nn

from adaptkit import OverBase, Pooled, hookimpl, predict, unit
from adaptkit.io.ranges import Share, Steps
from adaptkit.methods.calibration import confidence, heat_at, stepped_heat
from adaptkit.methods.ops import class_sums


class Frolic(OverBase):
    """A base's logits plus a classifier from the prompts' distribution, freed of bias.

    Transductive: covariance, temperature and bias are estimated on all queries. Nothing is tuned.
    """

    scope = "set"

    shrink: Share = 0.9  # weight of the identity in the covariance, lambda
    rounds: Steps = 10  # of bias correction, at most
    as_released: bool = False

    def needs(self):
        return {"x": Pooled()}

    def fit(self, task):
        self.prompts = nn.Buffer(torch.cat(task.text_per_prompt))  # (P, D)
        self.prototypes = nn.Buffer(unit(torch.stack([rows.mean(0) for rows in task.text_per_prompt])))  # z, (C, D)

    def forward(self, batch):
        logits, gaussian = predict(self.base, batch), self.gaussian(batch.x)
        if self.as_released:
            fused = logits + gaussian / stepped_heat(gaussian, confidence(logits))
            for _ in range(self.rounds + 1):
                fused = fused - self.prior(fused, fused).log()
            return fused
        fused = logits + gaussian / heat_at(gaussian, confidence(logits), low=1e-6, high=1e6, steps=60)
        return fused - self.bias(fused).log()

    def gaussian(self, x):
        """Logits of Gaussians about the prototypes, under one diagonal covariance, ``(N, C)``."""
        variance = torch.cat([x, self.prompts]).var(0)
        weight = self.prototypes / ((1 - self.shrink) * variance + self.shrink)
        return x @ weight.T - 0.5 * (self.prototypes * weight).sum(1)

    def bias(self, logits):
        """How often the classifier would say each class if all were as frequent as it says, ``(C,)`` adding up to 1."""
        prior = logits.new_full(logits.shape[1:], 1 / logits.shape[1])
        for _ in range(self.rounds):
            before, prior = prior, self.prior(logits, logits - prior.log())
            if (prior - before).abs().sum() < 1e-3:
                break
        return prior

    def prior(self, logits, corrected):
        """The bias of logits ``(N, C)``, each class's images being those that corrected logits give it, ``(C,)``."""
        p, classes = logits.softmax(-1), logits.shape[1]
        top = corrected.topk(min(2, classes)).values
        sure, labels = top[:, 0] - top[:, -1] > 1 / classes, corrected.argmax(1)
        counts = labels[sure].bincount(minlength=classes)[:, None]
        without = p.new_zeros(classes) if self.as_released else p.mean(0)
        means = torch.where(counts > 0, class_sums(p[sure], labels[sure], classes) / counts.clamp_min(1), without)
        return stationary(means, last=not self.as_released)


def stationary(means, steps=100, last=True):
    """The prior ``(C,)`` that a row-stochastic ``(C, C)`` leaves as it is, by power iteration from the uniform one.

    Its `last` step is the one that moved it by less than 0.001; the release leaves that out.
    """
    prior = torch.full_like(means[0], 1 / len(means))
    for _ in range(steps):
        before, prior = prior, prior @ means
        prior = prior / prior.sum().clamp_min(1e-12)  # 0 where no class has images
        if (prior - before).abs().sum() < 1e-3:
            prior = prior if last else before
            break
    return prior.clamp_min(1e-12)


@hookimpl
def methods():
    return {"frolic": Frolic}
