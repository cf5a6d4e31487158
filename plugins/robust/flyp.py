"""Fine-tuning of both towers by the loss they were pre-trained with: each image against a sentence about its class.

Source: Goyal et al., Finetune like you pretrain: Improved finetuning of zero-shot vision models, arXiv:2212.00638; the
default schedule is the one of its few-shot experiments. On ImageNet: 10 epochs, 500 steps of warm-up, batches of 512,
decay 0.1. ``fine-tuning`` is what it is compared with, and what WiSE-FT starts from: the image tower and a linear head
that starts at the text, by cross-entropy (Wortsman et al., Robust fine-tuning of zero-shot models, arXiv:2109.01903).
Deviations: the defaults of ``fine-tuning`` (rate, decay, batch, epochs, warm-up) are from memory, and could not be
checked; with few steps set ``warmup_steps: 0``, or the rate never gets there. They keep the epoch that does best on
validation images, we the last. Float32 instead of mixed precision. A tower that was trained with a sigmoid, such as
SigLIP, is tuned with it. WiSE-FT clips gradients at norm 1: the trainer's ``gradient_clip_val`` does so.
Interactions: everything is decayed, norms and the logit scale too, and images of one class in a batch are each other's
negatives, as in the authors' code. What is learned is as large as the towers; ``chunk`` bounds the rest.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Method, Schedule, hookimpl
from adaptkit.io.ranges import Steps
from adaptkit.methods.tuned_weights import TowerTuner


@dataclass(frozen=True, kw_only=True)
class RisingCosine(Schedule):
    """A rate that rises in equal steps, the first above zero, and then falls along a cosine."""

    warmup_steps: Steps = 0

    def rate(self, step, per_epoch, total):
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        return super().rate(step - self.warmup_steps, per_epoch, max(1, total - self.warmup_steps))


class FLYP(TowerTuner):
    """Both towers whole, trained on images and their sentences as in pre-training."""

    augment: str = "slight-crop"  # how the view of each step is drawn
    schedule: Schedule = RisingCosine(epochs=20, lr=1e-5, batch_size=256, weight_decay=0.2)

    def fit(self, task):
        super().fit(task)
        bias = torch.tensor(task.backbone.logit_bias)
        self.log_scale = nn.Parameter(torch.tensor(math.log(task.backbone.logit_scale)))
        self.bias = nn.Parameter(bias, requires_grad=bool(bias))

    def forward(self, batch):
        return self.logits(self.images(batch.pixels), self.text())

    def logits(self, x, text):
        return self.log_scale.exp() * x @ text.T + self.bias

    def loss(self, batch):
        logits = self.pairs(batch.views[:, 0], self.drawn_rows(batch.labels))  # (B, B)
        if self.backbone.logit_bias:  # a sigmoid for each pair
            return -F.logsigmoid(logits * (2 * torch.eye(len(logits)).to(logits) - 1)).sum(1).mean()
        own = torch.arange(len(logits)).to(logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    def pairs(self, pixels, rows):
        """Logits of images and the sentences with these numbers, ``(B, B)``."""
        tokens = {name: value[rows] for name, value in self.tokens.items()}
        return self.logits(self.images(pixels), self.encode(tokens))


class FineTuning(TowerTuner):
    """The whole image tower and a linear head that starts at the text, trained."""

    augment: str = "slight-crop"
    schedule: Schedule = RisingCosine(epochs=10, lr=3e-5, batch_size=512, weight_decay=0.1, warmup_steps=500)

    def trained(self, backbone):
        return [name for name in backbone.weight_names() if not name.startswith("text.")]

    def fit(self, task):
        super().fit(task)
        self.weight = nn.Parameter(task.backbone.logit_scale * task.text)  # (C, D)
        self.bias = nn.Parameter(torch.full((len(task.text),), task.backbone.logit_bias))  # (C,)

    def forward(self, batch):
        return F.linear(self.images(batch.pixels), self.weight, self.bias)

    retarget = Method.retarget  # its head knows the classes that it was trained on


@hookimpl
def methods():
    return {"flyp": FLYP, "fine-tuning": FineTuning}
