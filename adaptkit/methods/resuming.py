"""A training in Lightning's loop that keeps its state after its epochs, and goes on from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins import CheckpointIO
from torch import Tensor, nn
from torch.optim import Optimizer

from adaptkit.methods.checkpoints import is_plain, write_training
from adaptkit.methods.settle import OWN

REST = 20  # times longer than writing the state took, until it is written again: a twentieth of the time at most


class PlainIO(CheckpointIO):
    """Lightning's way to the disk, where nothing that is read can run."""

    def __init__(self, file: Path, identity: str, state: dict[str, Any] | None) -> None:
        """Keep.

        Args:
            file: of the state.
            identity: of the training; see `training_digest`.
            state: to go on from, as it was read.
        """
        self.file, self.identity, self.state = file, identity, state

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ANN401, ARG002, RUF100 (Lightning's)
        """Write a state."""
        write_training(self.file, self.identity, checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:  # noqa: ANN401, ARG002, RUF100 (Lightning's)
        """The state that was read."""
        return self.state or {}

    def remove_checkpoint(self, path: Any) -> None:  # noqa: ANN401 (Lightning's)
        """Remove the state."""
        self.file.unlink(missing_ok=True)


class KeepState(pl.callbacks.Checkpoint):
    """Writes the state after an epoch, when all other callbacks have had their turn; not after the last one."""

    def __init__(self, file: Path) -> None:
        self.file, self.took, self.last = file, 0.0, 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:  # noqa: ANN401 (a LitMethod)
        """Write it, unless that was done a moment ago."""
        began = time.perf_counter()
        if trainer.global_step >= pl_module.total or began - self.last < REST * self.took:
            return
        pl_module.look()  # no state is kept that a loss has already spoiled
        trainer.save_checkpoint(self.file)
        self.last = time.perf_counter()
        self.took = self.last - began


def at_epoch_end(loops: dict[str, Any]) -> None:
    """Make the state of Lightning's loops, taken in the last hook of an epoch, that after it.

    As it is taken, the epoch is not complete and its batches are still counted: gone on from, it has one batch more.
    """
    fit = loops["fit_loop"]
    for counts in (fit["epoch_progress"]["total"], fit["epoch_progress"]["current"]):
        counts["completed"] = counts["processed"]
    batches = fit["epoch_loop.batch_progress"]
    batches["is_last_batch"], batches["current"] = False, dict.fromkeys(batches["current"], 0)


def named_groups(method: nn.Module, optimizer: Optimizer) -> tuple[list[list[str]], list[str]]:
    """A method's parameters in each group of an optimiser, and all that require a gradient, by name."""
    names = {parameter: name for name, parameter in method.named_parameters()}
    groups = [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups]
    return groups, [name for parameter, name in names.items() if parameter.requires_grad]


def own_values(method: nn.Module, callbacks: Sequence[object]) -> list[dict[str, Any]]:
    """What modules and callbacks keep besides parameters and buffers, as far as it is tensors, numbers and text."""
    return [{k: v for k, v in vars(each).items() if k not in OWN and is_plain(v)} for each in _all(method, callbacks)]


def set_values(method: nn.Module, callbacks: Sequence[object], values: Sequence[dict[str, Any]]) -> None:
    """Put back what `own_values` took; a tensor of the same shape stays the same tensor, whoever else holds it."""
    for each, held in zip(_all(method, callbacks), values, strict=True):
        for name, value in held.items():
            now = vars(each).get(name)
            if isinstance(now, Tensor) and isinstance(value, Tensor) and now.shape == value.shape:
                now.data.copy_(value)
            else:
                vars(each)[name] = value


def _all(method: nn.Module, callbacks: Sequence[object]) -> list[object]:
    return [*method.modules(), *callbacks]
