"""How parameters are trained: optimiser and learning rate, as one value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import nn

from adaptkit.io.ranges import Epsilon, Many, Shots, Steps, Weight, hold_options

Optimizer = Literal["sgd", "adam", "adamw"]
Decay = Literal["constant", "cosine", "cosine-epoch"]
Epochs = Steps | tuple[tuple[Shots, Steps], ...]
"""Passes over the support set, or pairs of the shots a class from which on a number of passes counts."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the parameters that `fit` leaves trainable are trained, by Lightning. Defaults are the paper's.

    Attributes:
        epochs: passes over the support set; or, where they depend on the shots, pairs of how many shots a class and how
            many passes from there on: ``((1, 50), (2, 100), (8, 200))``.
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

    As many epochs as CoOp has with four shots, in a recipe ``epochs: [[1, 50], [2, 100], [8, 200]]``:

    >>> ak.Schedule(epochs=((1, 50), (2, 100), (8, 200))).length(per_epoch=1, shots=4)
    100
    """

    epochs: Epochs = 20
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
        """Hold every number to its range, and shots to their order."""
        hold_options(type(self), vars(self), "schedule")
        if isinstance(self.epochs, Sequence):
            pairs = tuple((shots, epochs) for shots, epochs in self.epochs)
            if not pairs or any(one[0] >= other[0] for one, other in pairwise(pairs)):
                raise ValueError(f"schedule.epochs must be pairs of ever more shots, with epochs; got {self.epochs!r}")
            object.__setattr__(self, "epochs", pairs)  # lists, as recipes write them, cannot be hashed

    def length(self, per_epoch: int, shots: int) -> int:
        """Optimiser steps in all, from the steps per epoch and the shots per class."""
        return self.steps or self.steps_per_shot * shots or self.passes(shots) * per_epoch

    def passes(self, shots: int) -> int:
        """Passes over the support set for so many shots per class; with fewer than are named, those of the first."""
        if not isinstance(self.epochs, tuple):
            return self.epochs
        reached = [epochs for least, epochs in self.epochs if least <= shots]
        return reached[-1] if reached else self.epochs[0][1]

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

COOP = replace(DASSL, epochs=((1, 50), (2, 100), (8, 200)))
"""How CoOp trains: longer with more shots; 50 epochs on ImageNet, whatever the shots, are for a recipe to say."""

COCOOP = replace(DASSL, epochs=10, batch_size=1)
"""How CoCoOp trains: images one by one."""
