"""GLA: zero-shot and an adapted model add up once the classes that pre-training favours are debiased.

Source: Zhu et al., Generalized Logit Adjustment: Calibrating Fine-tuned Models by Removing Label Bias in Foundation
Models, arXiv:2310.08106.
Deviations: the bias of pre-training is the minimum of a convex risk and is solved for, by Newton's method; the release
takes 1000 gradient steps from the uniform one, so small that they end near it. It is estimated on support and
validation images, as in the release's few-shot code, where all classes have as many; here they weigh as much, as in the
balanced target distribution of the theory, else the support's own bias would come back. That comes from its counts; the
release leaves it out. `base` is brought to a temperature at which its confidence on validation images is its accuracy
there, which the release searches to one percentage point; without them it stays as it is. So does zero-shot, which the
release brings to such a temperature, to 0.1 points, before it estimates the bias, and keeps there in its answers.
``as_released=True`` does all that the release does.
Interactions: `base` is the adapted model; over the default, zero-shot itself, what remains is zero-shot debiased.
"""

from functools import partial

import torch
from torch import nn

from adaptkit import OverBase, Pooled, ZeroShot, hookimpl, predict
from adaptkit.io.ranges import Steps
from adaptkit.methods.calibration import heat_at, interpolated_heat


class GLA(OverBase, ZeroShot):
    """Zero-shot plus an adapted model, both freed of their bias towards some classes.

    ``base / T - log prior of the support + zero-shot - log prior of pre-training``.
    """

    steps: Steps = 50  # of Newton's method, at most
    as_released: bool = False

    def needs(self):
        return {"x": Pooled()}

    def support_needs(self):
        return {"x": Pooled()}

    def fit(self, task):
        ZeroShot.fit(self, task)
        sets = [images for images in (task.support, task.val) if images is not None and len(images)]
        if not sets:
            raise ValueError("gla must have labelled images to estimate the bias on; got none")
        counts = task.support.labels.bincount(minlength=len(self.text)).to(self.text)
        x, labels = (torch.cat(parts) for parts in zip(*((s.x, s.labels) for s in sets), strict=True))
        logits = self.zero_shot(x)
        log_prior = counts.clamp_min(0.5).log()  # a class without images counts as half of one
        self.prior = nn.Buffer((log_prior - log_prior.mean()) * (not self.as_released))
        cold = interpolated_heat(logits, accuracy(logits, labels), 0.001) if self.as_released else 1.0
        self.zero_shot_temperature = nn.Buffer(torch.tensor(cold).to(self.text))
        solve = released_bias if self.as_released else partial(pretraining_bias, steps=self.steps)
        self.bias = nn.Buffer(solve(logits / cold, labels))  # log q, up to a constant
        heat = 1.0
        if task.val is not None and len(task.val):
            logits, search = predict(self.base, task.val), heat_at
            if self.as_released:
                search = partial(interpolated_heat, gap=0.01)
            heat = search(logits, accuracy(logits, task.val.labels))
        self.temperature = nn.Buffer(torch.tensor(heat).to(self.text))

    def forward(self, batch):
        debiased = self.zero_shot(batch.x) / self.zero_shot_temperature - self.bias
        return self.base(batch) / self.temperature - self.prior + debiased


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
        held = hessian + 1 / len(bias)  # the constant direction is free
        step, flat = torch.linalg.solve_ex(held, gradient)
        step = torch.linalg.pinv(held, hermitian=True) @ gradient if flat else step  # no step where nothing bends
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


def accuracy(logits, labels):
    """Share of right answers."""
    return float((logits.argmax(-1) == labels).float().mean())


def released_bias(logits, labels, steps=1000):
    """``(C,)``, log q after small steps down the mean cross-entropy from the uniform q, whose sum is drawn to 1."""
    logits, classes = logits.double(), logits.shape[1]
    frequency = labels.bincount(minlength=classes) / len(labels)
    q, multiplier, rate = logits.new_full((classes,), 1 / classes), 0.0, 1e-5 * len(labels) / classes / 50
    for _ in range(steps):
        slope = (frequency - (logits - q.log()).softmax(-1).mean(0)) / q - multiplier
        multiplier += rate * float(1 - q.sum())
        q = q - rate * slope
    return (q + 1e-12).log().float()


@hookimpl
def methods():
    return {"gla": GLA}
