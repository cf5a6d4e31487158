"""The one place that Lightning trains in; its callbacks are in `keep_best` and `resuming`."""

from __future__ import annotations

import copy
import inspect
import logging
import math
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from adaptkit.features.cache import CachedRows
from adaptkit.features.items import Images, InMemory
from adaptkit.io.errors import must_be
from adaptkit.io.notices import notice
from adaptkit.methods import spread
from adaptkit.methods.batches import Batches as Batches
from adaptkit.methods.batches import Shares
from adaptkit.methods.checkpoints import draw_on, draws, next_file, read_training, training_digest
from adaptkit.methods.keep_best import KeepBest as KeepBest
from adaptkit.methods.method import Method, Schedule
from adaptkit.methods.resuming import KeepState, PlainIO, at_epoch_end, named_groups, own_values, set_values
from adaptkit.methods.task import Task
from adaptkit.methods.trainer_options import length_of, one_machine

QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}

LOOK = 32  # losses that are looked at together


class LitMethod(pl.LightningModule):
    """Any method as a LightningModule: `loss` becomes a training step, `schedule` the optimiser and its rate."""

    heard = True  # somebody is told the loss, which takes a fifth of a small step

    def __init__(self, method: Method, schedule: Schedule, batches: Batches, total: int) -> None:
        super().__init__()
        self.method, self.schedule, self.batches, self.total = method, schedule, batches, total
        self.per_epoch = len(batches)
        self.losses: list[tuple[int, Tensor]] = []  # by optimiser step, not yet looked at
        self.own: list[pl.Callback] = []  # the method's callbacks
        self.groups: list[list[str]] | None = None  # parameters by optimiser group, where it goes on from a state

    def on_train_start(self) -> None:
        """Keep how the method was, where one over it wants to know."""
        if getattr(self.method, "keeps_start", False) and self.groups is None:
            vars(self.method)["started"] = {name: t.clone() for name, t in self.method.state_dict().items()}

    def training_step(self, batch: Images, _: int) -> Tensor:
        """One batch's loss."""
        loss = self.method.loss(batch)
        if self.heard:
            self.log("loss", loss, batch_size=len(batch), prog_bar=True)
        self.losses.append((self.global_step, loss.detach()))
        if len(self.losses) == LOOK:
            self.look()
        return loss

    def on_before_backward(self, _: Tensor) -> None:
        """The forward pass has drawn what it draws: the next batch's pictures may be decoded meanwhile."""
        self.batches.expect_next()

    def on_train_end(self) -> None:
        """Look at the last losses."""
        self.look()

    def look(self) -> None:
        """Hold the losses since the last look to be finite, in one go: on a GPU every look waits for it.

        Raises:
            ValueError: when one is not, naming the first such step.
        """
        seen, self.losses = self.losses, []
        if not seen or bool((losses := torch.stack([loss for _, loss in seen])).isfinite().all()):
            return
        step, loss = next((n, float(x)) for (n, _), x in zip(seen, losses, strict=True) if not math.isfinite(x))
        raise ValueError(
            f"the training loss of {type(self.method).__name__} must be finite; got {loss} at step {step + 1} of "
            f"{self.total}; lower the schedule's lr, {self.schedule.lr:g}, or set the trainer's gradient_clip_val"
        )

    def transfer_batch_to_device(self, batch: Images, device: torch.device, _: int) -> Images:
        """Features are read onto the device they are needed on."""
        return batch.to(device)

    def configure_callbacks(self) -> list[pl.Callback]:
        """What the method does inside the loop."""
        self.own = list(self.method.callbacks())
        return self.own

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is drawn from, and what method and callbacks keep, at the end of an epoch."""
        at_epoch_end(checkpoint["loops"])
        groups, learned = named_groups(self.method, self.trainer.optimizers[0])
        own = {"groups": groups, "learned": learned, "values": own_values(self.method, self.own)}
        checkpoint["own"] = {**own, "draws": draws()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it from there; what follows draws nothing before the next epoch's order."""
        own = checkpoint["own"]
        self.groups = own["groups"]
        for name, parameter in self.method.named_parameters():
            parameter.requires_grad_(name in own["learned"])
        set_values(self.method, self.own, own["values"])
        draw_on(own["draws"])

    def configure_optimizers(self) -> Any:  # noqa: ANN401 (Lightning's union)
        """The schedule's optimiser; its rate is set for every step."""
        learned = [p for p in self.method.parameters() if p.requires_grad]
        optimizer = self.schedule.make(self.method.parameter_groups(learned))
        for group, names in zip(optimizer.param_groups, self.groups or (), strict=False):
            group["params"] = [self.method.get_parameter(name) for name in names]  # a method may have changed them
        rates = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.schedule.rate(step, self.per_epoch, self.total) / (self.schedule.lr or 1)
        )
        return [optimizer], [{"scheduler": rates, "interval": "step"}]


@contextmanager
def fitting(options: Mapping[str, object]) -> Iterator[None]:
    """Make what Lightning says of options that do not fit a ValueError, and let signals do what they did."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    except MisconfigurationException as error:
        said = " ".join(str(error).split())
        raise ValueError(f"trainer must fit Lightning and this machine; got {dict(options)}: {said}") from error
    except SIGTERMException:
        signal.raise_signal(signal.SIGTERM)  # Lightning held it back; it was meant for the process, not for a method
        raise
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error  # a notebook takes the other as its end
        raise


def check_trainer(options: Mapping[str, object]) -> None:
    """Options for `pytorch_lightning.Trainer` are such that there can be one on this machine.

    Raises:
        ValueError: with what Lightning says of them.
    """
    with fitting(options), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pl.Trainer(**{**QUIET, **options})  # type: ignore[arg-type]


def train(method: Method, task: Task, options: Mapping[str, object]) -> None:
    """Train what requires a gradient on the method's training images, by its `schedule`.

    Args:
        method: fitted, with a hyperparameter named ``schedule``.
        task: bound to the method.
        options: for `pytorch_lightning.Trainer`, unchanged; they win over the schedule's length and over quietness.
    """
    schedule = getattr(method, "schedule", None)
    if not isinstance(schedule, Schedule):
        raise TypeError(f"a trained method must have a 'schedule: Schedule' option; got {type(method).__name__}")
    if not len(images := method.training_images(task)):
        raise ValueError(f"{type(method).__name__} must have support images to train on; got none")
    one_machine(options)
    known = inspect.signature(pl.Trainer).parameters
    if odd := [key for key in options if key not in known]:
        raise ValueError(must_be("a key of trainer", known, odd[0]))
    batches = Batches(images.load(), schedule)
    shots = round(len(images) / max(1, len(task.classnames)))
    total = length_of(options, len(batches), schedule.length(len(batches), shots))
    if not total:
        return
    device = torch.device(task.support.device)
    own = {**{k: v for k, v in options.items() if k not in spread.KEYS}, "max_steps": total, **spread.one_card(device)}
    file = next_file()
    if (count := spread.processes(options, device)) > 1:
        if file:
            notice(f"no checkpoint is kept of {type(method).__name__}: several devices train it")
        spread.check_spreads(method, options)
        rows = task.support.rows.images.rows if isinstance(task.support.rows, InMemory) else task.support.rows
        relay = rows.cache.answering.hook if isinstance(rows, CachedRows) else None  # brings the plugins along
        given = (relay, method, batches.support, schedule, total, device.type, own)
        method.load_state_dict(spread.launch(train_share, given, count))
        return
    kept = None if file is None else (file, training_digest(method, batches.support, total, own))
    fit(LitMethod(method, schedule, batches, total), device.type, own, kept)
    method.to(device)
    method.zero_grad()


def fit(lit: LitMethod, device: str, options: Mapping[str, object], kept: tuple[Path, str] | None = None) -> None:
    """Let Lightning train; perhaps going on from a state that is kept in a file, under the training's identity."""
    lit.heard = any(options.get(key) for key in ("callbacks", "enable_progress_bar", "logger"))
    defaults = {**QUIET, "max_epochs": -1, "accelerator": {"cuda": "gpu"}.get(device, device), "devices": 1}
    chosen: dict[str, Any] = {**defaults, **options}
    state = None
    if kept:
        state = read_training(*kept)
        chosen["enable_checkpointing"] = True  # Lightning's word for it; it is written as `PlainIO` writes
        for key, more in (("plugins", PlainIO(*kept, state)), ("callbacks", KeepState(kept[0]))):
            before = chosen.get(key) or []
            chosen[key] = [*(before if isinstance(before, list | tuple) else [before]), more]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning|lightning_fabric")
        warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
        with fitting(options):
            pl.Trainer(**chosen).fit(lit, lit.batches, ckpt_path=str(kept[0]) if kept and state else None)


class LitShare(LitMethod):
    """A method in one of several processes: the mean over the whole batch, of which each has a part."""

    batches: Shares

    def training_step(self, batch: Images, step: int) -> Tensor:
        """The loss of the part, weighed so that the mean over processes is that of the whole batch."""
        whole, start, _ = self.batches.place(step)
        batch.part = whole, start
        return super().training_step(batch, step) * self.batches.weight(step)


def train_share(rank: int, world: int, given: tuple[Any, ...]) -> dict[str, Tensor]:
    """What one process does of a training that is spread; the method's state when it is done."""
    _, method, support, schedule, total, device, options = given
    method = copy.deepcopy(method)  # what was sent is shared memory, which all processes would write to
    if device == "cuda":
        method, support = method.to(f"cuda:{rank}"), support.to(f"cuda:{rank}")
        for towers in {each.backbone for each in method.modules() if hasattr(each, "backbone")}:
            towers.to(f"cuda:{rank}")
    from pytorch_lightning.strategies import DDPStrategy

    backend = "nccl" if device == "cuda" else "gloo"
    strategy = DDPStrategy(process_group_backend=backend, find_unused_parameters=True)
    lit = LitShare(method, schedule, Shares(support, schedule, rank, world), total)
    fit(lit, device, {**options, "devices": world, "strategy": strategy, "use_distributed_sampler": False})
    return {name: t.detach().cpu() for name, t in method.state_dict().items()}
