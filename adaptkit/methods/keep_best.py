"""Leaving a training at its best, by validation images."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl

from adaptkit.methods.method import Method


class KeepBest(pl.Callback):
    """Leaves a method as it was when its score was best, the first time it was so."""

    def __init__(self, method: Method, score: Callable[[], float], every: int = 0) -> None:
        """Watch.

        Args:
            method: in training.
            score: asked with the method in evaluation mode, e.g. its accuracy on validation images.
            every: optimiser steps between looks, the first after the first step; 0 looks at the end of each epoch.
        """
        self.method, self.score, self.every, self.best, self.state = method, score, every, -1.0, method.state_dict()

    def look(self) -> None:
        """Keep the state if it is better than any before."""
        self.method.eval()
        right = self.score()
        self.method.train()
        if right > self.best:
            self.best, self.state = right, {n: t.clone() for n, t in self.method.state_dict().items()}

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Look after some steps."""
        if self.every and (trainer.global_step - 1) % self.every == 0:
            self.look()

    def on_train_epoch_end(self, *_: object) -> None:
        """Look after every epoch."""
        if not self.every:
            self.look()

    def on_train_end(self, *_: object) -> None:
        """Go back to the best."""
        self.method.load_state_dict(self.state)
