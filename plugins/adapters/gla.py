"""GLA: zero-shot and an adapted model add up once the classes that pre-training favours are debiased.

Source: Zhu et al., Generalized Logit Adjustment: Calibrating Fine-tuned Models by Removing Label Bias in Foundation
Models, arXiv:2310.08106.
Deviations: the bias of pre-training is the minimum of a convex risk and is solved for, by Newton's method; the release
takes 1000 small gradient steps under constraints. It is estimated on support and validation images, as in the release's
few-shot code, where all classes have as many. Here they weigh as much, as in the balanced target distribution of the
theory; else the support's own bias would come back. `base` is brought to a temperature at which its confidence on
validation images is its accuracy there; without them it stays as it is. The support's own bias comes from its counts.
Interactions: `base` is the adapted model; over the default, zero-shot itself, what remains is zero-shot debiased.
"""

import torch
from torch import nn

from adaptkit import OverBase, Pooled, ZeroShot, hookimpl, predict
from adaptkit.io.ranges import Steps


class GLA(OverBase, ZeroShot):
    """Zero-shot plus an adapted model, both freed of their bias towards some classes.

    ``base / T - log prior of the support + zero-shot - log prior of pre-training``.
    """

    steps: Steps = 50  # of Newton's method, at most

    def needs(self):
        return {"x": Pooled()}

    def support_needs(self):
        return {"x": Pooled()}

    def fit(self, task):
        ZeroShot.fit(self, task)
        sets = [images for images in (task.support, task.val) if images is not None and len(images)]
        if not sets:
            raise ValueError("gla must have labelled images to estimate the bias on; got none")
        x, labels = (torch.cat(parts) for parts in zip(*((s.x, s.labels) for s in sets), strict=True))
        counts = task.support.labels.bincount(minlength=len(self.text)).to(self.text)
        log_prior = (counts.clamp_min(0.5) / counts.sum()).log()  # a class without images counts as half of one
        self.prior = nn.Buffer(log_prior - log_prior.mean())
        self.bias = nn.Buffer(pretraining_bias(self.zero_shot(x), labels, self.steps))  # log q, up to a constant
        heat = 1.0
        if task.val is not None and len(task.val):
            heat = temperature(predict(self.base, task.val), task.val.labels)
        self.temperature = nn.Buffer(torch.tensor(heat).to(self.text))

    def forward(self, batch):
        return self.base(batch) / self.temperature - self.prior + self.zero_shot(batch.x) - self.bias


def pretraining_bias(logits, labels, steps):
    """``(C,)``, mean 0: what subtracted from the logits makes the classes' mean cross-entropy least.

    A class without images is left at the mean of the others, as nothing bounds it.
    """
    logits = logits.double()
    counts = labels.bincount(minlength=logits.shape[1]).double()
    seen = counts > 0
    weight = 1 / (counts[labels] * seen.sum())  # (N,)
    logits, bias = logits[:, seen], logits.new_zeros(int(seen.sum()))
    for _ in range(steps):
        p = (logits - bias).softmax(-1)
        said = weight @ p  # (C,)
        gradient, hessian = 1 / len(bias) - said, torch.diag(said) - (weight[:, None] * p).T @ p
        step = torch.linalg.solve(hessian + 1 / len(bias), gradient)  # the constant direction is free; it is held
        size = 1.0
        while size > 1e-6 and risk(logits, bias - size * step, weight) > risk(logits, bias, weight):
            size /= 2
        bias = bias - size * step
        if float(gradient.abs().max()) < 1e-9:
            break
    out = torch.zeros(len(seen)).to(logits)
    out[seen] = bias - bias.mean()
    return out.float()


def risk(logits, bias, weight):
    """The classes' mean cross-entropy, up to a constant."""
    return float(weight @ (logits - bias).logsumexp(-1) + bias.mean())


def temperature(logits, labels):
    """What logits are divided by so that their mean confidence is their accuracy, from 0.01 to 100."""
    right, low, high = float((logits.argmax(-1) == labels).float().mean()), 0.01, 100.0
    for _ in range(50):
        middle = (low * high) ** 0.5
        sure = float((logits / middle).softmax(-1).amax(-1).mean())
        low, high = (middle, high) if sure > right else (low, middle)  # hotter is less sure
    return (low * high) ** 0.5


@hookimpl
def methods():
    return {"gla": GLA}
