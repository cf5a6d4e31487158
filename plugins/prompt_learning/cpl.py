"""A prefix that is trained on several candidate labels for each image, which nobody labelled.

Candidates come from the probabilities that `base` gives the pool, or the support where there is no pool; no label of
the support is read. ``support: cpl`` chooses images that have candidates; ``{cpl: {base: cpl}}`` labels them again.

Source: Zhang et al., Candidate Pseudolabel Learning: Enhancing Vision-Language Models by Prompt Tuning with Unlabeled
Data, arXiv:2406.10502.
Deviations: length and rate are the release's, which leaves the rate open in its scripts and has other quantiles for
each dataset. It chooses images anew in each of ten rounds, more each time; here that is for a base, one round each.
Images without a candidate do not count, whatever the support is. Weights of ``rc``, ``cav`` and ``lw`` follow the
prefix of the epoch before. Float32 instead of half precision.
"""

from dataclasses import field
from typing import Literal

import torch
from torch import nn
from torch.func import functional_call

from adaptkit import Method, Schedule, ZeroShot, hookimpl, predict
from adaptkit.io.ranges import Share
from adaptkit.methods.candidates import candidate_bounds, candidates
from adaptkit.methods.prefix_learner import PrefixLearner

TINY, Q = 1e-7, 0.7  # of the release: what keeps logarithms finite; the exponent of the generalised cross-entropy


class CPL(PrefixLearner):
    """A trained prefix, for images whose class is one of several that are likely."""

    base: Method = field(default_factory=ZeroShot)  # whose probabilities make candidates
    sure: Share = 0.6  # quantile of largest probabilities, which an image's candidates sum up to, alpha
    top: Share = 0.9  # quantile of a class's probabilities that its images reach, beta
    partial: Literal["cc", "ce", "gce", "rc", "cav", "lw"] = "cc"  # the loss on candidates
    soft: bool = False  # weigh candidates by their probabilities
    schedule: Schedule = Schedule(
        epochs=50, lr=0.05, batch_size=64, optimizer="sgd", weight_decay=0.05, warmup=2, warmup_lr=1e-4, drop_last=True
    )

    def pool_needs(self):
        return self.base.needs()

    def fit(self, task):
        self.start_prefixes(task)
        images, self.earlier = task.pool if task.pool is not None and len(task.pool) else task.support, None
        total, least = candidate_bounds(predict(self.base, images).softmax(-1), self.sure, self.top)
        self.total, self.least = nn.Buffer(total, persistent=False), nn.Buffer(least, persistent=False)

    def weights(self, p):
        """Of the candidates of images, ``(B, C)``; zeros where there are none."""
        chosen = candidates(p, self.total, self.least)
        rows = chosen * p if self.soft else chosen.to(p)
        return rows / rows.sum(1, keepdim=True).clamp_min(1e-12) if self.soft else rows

    def loss(self, batch):
        batch = batch.blind()  # an image's candidates are all that is known of its class
        with torch.no_grad():
            weights = self.weights(self.base(batch).softmax(-1))
            found = weights.sum(1) > 0
            earlier = None if self.earlier is None else functional_call(self, self.earlier, (batch,))
        own = confidence(self.partial, earlier, weights)[found]
        losses = partial_loss(self.partial, self(batch)[found], weights[found], own)
        return losses.sum() / max(1, len(losses))

    def callbacks(self):
        from pytorch_lightning import Callback

        class Keep(Callback):  # the prefix of the epoch before
            def on_train_epoch_end(self, trainer, module):
                made = module.method
                made.earlier = {n: p.detach().clone() for n, p in made.named_parameters() if p.requires_grad}

            def on_train_end(self, trainer, module):
                module.method.earlier = None

        return [Keep()] if self.partial in ("rc", "cav", "lw") else []


def partial_loss(kind, logits, weights, own):
    """Of each image, ``(B,)``, from logits, candidates' weights and confidence in classes, ``(B, C)`` each."""
    p, log_p, held = logits.softmax(-1), logits.log_softmax(-1), weights > 0
    if kind == "cc":
        return -(p * weights).sum(1).clamp_min(1e-30).log()
    if kind == "gce":
        return torch.where(held, (1 - (p + TINY) ** Q) / Q, TINY).sum(1)
    if kind == "lw":
        return -(own * torch.where(held, (p + TINY).log(), 2 * (1 - p + TINY).log())).sum(1)
    return -(log_p * (weights if kind == "ce" else own)).sum(1)


def confidence(kind, logits, weights):
    """In classes, ``(B, C)``: by the logits of an earlier prefix, or without any by the weights alone."""
    if logits is None:
        return weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
    if kind == "cav":
        best = (logits * (1 - logits).abs() * weights).argmax(1)
        return nn.functional.one_hot(best, logits.shape[1]).to(logits)
    p, held = logits.softmax(-1), (weights > 0).to(logits)
    if kind == "lw":
        both = [p * held, p * (1 - held)]
        return sum(rows / (rows + TINY).sum(1, keepdim=True) for rows in both)
    return p * weights / (p * weights).sum(1, keepdim=True).clamp_min(1e-12)


@hookimpl
def methods():
    return {"cpl": CPL}
