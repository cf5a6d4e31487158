"""CutMix: the image tower and a head, trained on images with a piece of another one; SWAT: that in two stages.

Source: Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features,
arXiv:1905.04899; Liu et al., Few-Shot Recognition via Stage-Wise Retrieval-Augmented Finetuning, arXiv:2406.11148
(``swat``: retrieved images join the first stage; in the second the head alone is trained, on the support).
Deviations: the paper retrieves captioned images of the pre-training set by class names; here they are the task's pool,
each of the class that zero-shot gives it, and as many of each batch as `retrieved` says, instead of all that there are.
With ``weight`` both parts of a mixed loss count by the source of the image beneath; the release then forgets the other
part. The second stage goes on from the first one's head. Rates are from memory, and could not be checked. Float32.
Interactions: without a pool the first stage has the support alone. What is learned is as large as the image tower.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Method, Pooled, Schedule, hookimpl
from adaptkit.io.ranges import Positive, Share, Weight
from adaptkit.methods.tuned_weights import TowerTuner


class CutMix(TowerTuner):
    """Image tower and head, trained on images with pieces of others pasted in."""

    augment: str = "wide-crop-flip"
    mixing: Share = 0.5  # share of steps that paste
    beta: Positive = 1.0  # of the Beta distribution that the share of the image that stays is drawn from
    balance: Literal["none", "softmax"] = "none"  # add logarithms of class frequencies to logits in training
    head_lr: Weight = 1e-4  # the schedule's is the tower's
    schedule: Schedule = Schedule(epochs=50, lr=1e-6, batch_size=32, weight_decay=0.01)

    def trained(self, backbone):
        return [name for name in backbone.weight_names() if not name.startswith("text.")]

    def fit(self, task):
        super().fit(task)
        task.require_support(type(self).__name__)
        self.head = nn.Parameter(task.text.clone())  # (C, D); its rows do not stay of unit norm
        self.frequencies = nn.Buffer(task.support.labels.bincount(minlength=len(task.text)).to(task.text))

    retarget = Method.retarget  # its head knows the classes that it was trained on

    def parameter_groups(self, parameters):
        tower = [p for p in parameters if p is not self.head]
        return [{"params": tower}, {"params": [self.head], "lr": self.head_lr}]

    def logits(self, x):
        """``(B, D)`` unit-norm embeddings to ``(B, C)``."""
        return self.backbone.logits(x, self.head)

    def forward(self, batch):
        return self.logits(self.images(batch.pixels))

    def loss(self, batch):
        return self.mixed_loss(batch.views[:, 0], batch.labels)

    def mixed_loss(self, pixels, labels, weight=1.0):
        """Mean loss of images, perhaps with pieces of others in them; weights ``(B,)`` are of who gets the piece."""
        if float(torch.rand(())) >= self.mixing:
            return (weight * self.losses(self.logits(self.images(pixels)), labels)).mean()
        share = float(torch.distributions.Beta(self.beta, self.beta).sample())
        order, centre = torch.randperm(len(pixels)).to(labels.device), torch.randint(2**30, (2,))
        pixels, share, _ = pasted(pixels, order, share, centre)
        logits = self.logits(self.images(pixels))
        both = share * self.losses(logits, labels) + (1 - share) * self.losses(logits, labels[order])
        return (weight * both).mean()

    def losses(self, logits, labels):
        """Cross-entropy of each image, ``(B,)``."""
        prior = self.frequencies.clamp_min(1).log() if self.balance == "softmax" else 0
        return F.cross_entropy(logits + prior, labels, reduction="none")


def pasted(pixels, order, share, centre):
    """Images ``(B, 3, H, W)`` with a box from those in another order, the share that stays, and the box's ends.

    The centre is two whole numbers, taken modulo the sides.
    """
    sides = pixels.shape[2:]
    cut = [int(side * math.sqrt(1 - share)) for side in sides]
    middle = [int(c) % side for c, side in zip(centre, sides, strict=True)]
    low = [max(0, m - c // 2) for m, c in zip(middle, cut, strict=True)]
    high = [min(side, m + c // 2) for m, c, side in zip(middle, cut, sides, strict=True)]
    mixed, (top, left), (bottom, right) = pixels.clone(), low, high
    mixed[:, :, top:bottom, left:right] = pixels[order, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (sides[0] * sides[1]), (top, bottom, left, right)


class SWAT(CutMix):
    """CutMix on support and retrieved images, then the head alone on the support."""

    first: Share = 0.8  # of the steps, in which the tower is trained, too
    retrieved: Share = 0.5  # of a batch in them, drawn from the pool
    weight: Weight = 1.0  # of a support image's loss in them, where a retrieved one's is 1

    def pool_needs(self):
        return {"x": Pooled(), **self.support_needs()}

    def fit(self, task):
        super().fit(task)
        self.register_buffer("second", torch.tensor(False))  # stage
        self.pool, self.given = None, None
        if task.pool is not None and len(task.pool):
            self.pool = task.pool.bind(self.support_needs())
            self.given = (task.pool.x @ task.text.T).argmax(-1)  # (N,)
            self.frequencies += self.given.bincount(minlength=len(task.text))

    def loss(self, batch):
        pixels, labels = batch.views[:, 0], batch.labels
        if self.second:
            with torch.no_grad():
                x = self.images(pixels)
            return F.cross_entropy(self.logits(x), labels)
        if self.pool is not None and (count := round(len(labels) * self.retrieved / max(1e-6, 1 - self.retrieved))):
            rows = torch.randint(len(self.pool), (min(count, len(self.pool)),))
            pixels = torch.cat([pixels, self.pool[rows].views[:, 0].to(pixels)])
            labels = torch.cat([labels, self.given[rows.to(self.given.device)].to(labels)])
        own = torch.arange(len(labels)).to(labels.device) < len(batch)
        return self.mixed_loss(pixels, labels, torch.where(own, self.weight, 1.0))

    def callbacks(self):
        from pytorch_lightning.callbacks import LambdaCallback

        return [LambdaCallback(on_train_batch_start=self.keep_time)]

    @torch.no_grad()
    def keep_time(self, trainer, lit, *_):
        """Change stages when it is time, and let the rates fall in each by themselves."""
        step, change = trainer.global_step, int(lit.total * self.first)
        self.second.fill_(step >= change)
        begin, length = (change, lit.total - change) if self.second else (0, change)
        share = self.schedule.rate(step - begin, trainer.num_training_batches, length) / (self.schedule.lr or 1)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * share


@hookimpl
def methods():
    return {"cut-mix": CutMix, "swat": SWAT}
