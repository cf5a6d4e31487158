"""How parameters are trained: optimiser and learning rate, as one value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from adaptkit.io.ranges import Epsilon, Many, Steps, Weight, hold_options

Optimizer = Literal["sgd", "adam", "adamw"]
Decay = Literal["constant", "cosine", "cosine-epoch"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the parameters that `fit` leaves trainable are trained, by Lightning. Defaults are the paper's.

    Attributes:
        epochs: passes over the support set.
        steps: optimiser steps instead of epochs; 0 means `epochs` decides.
        steps_per_shot: optimiser steps for each shot instead of epochs; 0 means `epochs` decides.
        lr: learning rate at its largest.
        batch_size: support images per step; the last, smaller batch is kept unless `drop_last`.
        optimizer: ``"sgd"`` (momentum 0.9), ``"adam"`` or ``"adamw"``.
        weight_decay: as the optimiser defines it.
        eps: Adam's; unused by SGD.
        decay: ``"cosine"`` falls at every step, ``"cosine-epoch"`` at every epoch, to zero (or `final_lr`) at the end.
        final_lr: where the cosine ends.
        warmup: epochs at `warmup_lr` before the cosine starts at its full height (Dassl's way).
        warmup_lr: learning rate during warm-up.
        drop_last: drop the last batch of an epoch when it is smaller than the others.

    >>> import adaptkit as ak
    >>> schedule = ak.Schedule(epochs=2, lr=0.1, decay="cosine")
    >>> [round(schedule.rate(step, per_epoch=2, total=4), 3) for step in range(4)]
    [0.1, 0.085, 0.05, 0.015]
    """

    epochs: Steps = 20
    steps: Steps = 0
    steps_per_shot: Steps = 0
    lr: Weight = 1e-3
    batch_size: Many = 32
    optimizer: Optimizer = "adamw"
    weight_decay: Weight = 0.0
    eps: Epsilon = 1e-8
    decay: Decay = "cosine"
    final_lr: Weight = 0.0
    warmup: Steps = 0
    warmup_lr: Weight = 1e-5
    drop_last: bool = False

    def __post_init__(self) -> None:
        """Hold every number to its range."""
        hold_options(type(self), vars(self), "schedule")

    def length(self, per_epoch: int, shots: int) -> int:
        """Optimiser steps in all, from the steps per epoch and the shots per class."""
        return self.steps or self.steps_per_shot * shots or self.epochs * per_epoch

    def rate(self, step: int, per_epoch: int, total: int) -> float:
        """Learning rate of optimiser step `step`, counted from 0."""
        if step < self.warmup * per_epoch:
            return self.warmup_lr
        if self.decay == "constant":
            return self.lr
        warm = self.warmup * per_epoch
        done = (step - warm) / max(1, total - warm)
        if self.decay == "cosine-epoch":
            done = (step // per_epoch - self.warmup) / max(1, round(total / per_epoch))
        return self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * done)) / 2

    def make(self, parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser, over these parameters, or groups of them with settings of their own."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, self.lr, momentum=0.9, weight_decay=self.weight_decay)
        adam = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
        return adam(parameters, self.lr, weight_decay=self.weight_decay, eps=self.eps)


DASSL = Schedule(
    epochs=50,
    lr=2e-3,
    batch_size=32,
    optimizer="sgd",
    weight_decay=5e-4,
    decay="cosine-epoch",
    warmup=1,
    drop_last=True,
)
"""How CoOp's code base and what is built in it train, prompts included; they differ in length, rate and batch."""
