"""What a recipe may ask of Lightning's Trainer: what changes the training, and nothing that reaches beyond a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from adaptkit.io.errors import must_be
from adaptkit.io.ranges import Range, Weight
from adaptkit.io.values import convert

Length = Annotated[int, Range(-1, 10_000_000)]
"""Of a training; -1 leaves it to the method's schedule."""
Devices = Annotated[int, Range(1, 64)]
"""Of one machine, each with a process of its own that has a share of every batch; "auto" is all its GPUs."""
ALLOWED: dict[str, Any] = {
    "max_epochs": Length,
    "max_steps": Length,
    "gradient_clip_val": Weight,
    "gradient_clip_algorithm": Literal["norm", "value"],
    "accumulate_grad_batches": Annotated[int, Range(1, 10_000)],
    "precision": Literal[16, 32, "16", "32", "bf16", "16-mixed", "bf16-mixed", "32-true"],  # features have 32 bits
    "accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps"],
    "devices": Devices | Literal["auto"],
    "strategy": Literal["auto", "ddp"],
    "deterministic": bool,
    "benchmark": bool,
    "detect_anomaly": bool,
    "enable_progress_bar": bool,
    "enable_model_summary": bool,
    "enable_checkpointing": Literal[False],
    "logger": Literal[False],
}
_SPREAD = "a cell is trained on one machine; 'adaptkit run --shard I/N' shares the cells among machines"
_PYTHON = "objects cannot be written in a recipe; a method's own 'callbacks', or ak.adapt(..., trainer=...), bring them"
_KEPT = "Lightning's are pickles; a recipe's checkpoint: true writes none; 'adaptkit export' keeps classifiers"
INSTEAD = {
    **dict.fromkeys(("num_nodes", "use_distributed_sampler", "sync_batchnorm"), _SPREAD),
    **dict.fromkeys(("callbacks", "plugins", "profiler"), _PYTHON),
    **dict.fromkeys(("enable_checkpointing", "default_root_dir", "enable_autolog_hparams"), _KEPT),
    "logger": "every cell's numbers are in its record; a plugin's 'report' hook sends them elsewhere",
    "fast_dev_run": "set max_steps: 1",
    "max_time": "set max_epochs or max_steps, which make the same numbers on every machine",
}
"""How to get what a key that is refused was meant to bring."""


def trainer_options(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The options for the Trainer that a recipe sets, converted to their types; null leaves one as it is.

    Raises:
        ValueError: for a key that a recipe may not set, with what to do instead, or a value of the wrong type.
    """
    for key in asked:
        if key in INSTEAD and not (key in ALLOWED and asked[key] is False):
            raise ValueError(f"trainer must not set {key}; got {asked[key]!r}; {INSTEAD[key]}")
        if key not in ALLOWED:
            raise ValueError(must_be("a key of trainer", ALLOWED, key))
    return {key: convert(value, ALLOWED[key], f"trainer.{key}") for key, value in asked.items() if value is not None}


def one_machine(asked: Mapping[str, object]) -> None:
    """Options that a program gives may be anything, but a cell is trained on one machine, in features' precision.

    Raises:
        ValueError: when they spread it over several, or otherwise than batch by batch, or turn the weights to numbers
            of another size.
    """
    if str(asked.get("precision") or 32) in ("64", "64-true", "16-true", "bf16-true"):
        raise ValueError(must_be("trainer.precision", get_args(ALLOWED["precision"]), asked["precision"]))
    if asked.get("num_nodes", 1) not in (1, "1", "auto"):
        raise ValueError(f"trainer must not set num_nodes; got {asked['num_nodes']!r}; {INSTEAD['num_nodes']}")
    for key in ("devices", "strategy"):
        if asked.get(key) is not None:
            convert(asked[key], ALLOWED[key], f"trainer.{key}")


def length_of(asked: Mapping[str, object], per_epoch: int, own: int) -> int:
    """Optimiser steps of a training: as many as the trainer's options ask for, or else the schedule's own."""
    steps = {"max_epochs": per_epoch, "max_steps": 1}  # in one of them
    told = [int(n) * each for key, each in steps.items() if (n := asked.get(key)) is not None and int(n) >= 0]  # type: ignore[call-overload]
    return min(told, default=own)
