"""A task from the names of its parts, and several methods side by side on one task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adaptkit.features.items import Images
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from adaptkit.report.table import Table
from adaptkit.runs.build import Spec, method
from adaptkit.runs.evaluate import evaluate
from adaptkit.runs.recipe import label
from adaptkit.runs.setting import Setting
from adaptkit.runs.workspace import Workspace


def load(
    dataset: str,
    *,
    backbone: str = "hf:openai/clip-vit-base-patch16",
    shots: int = 16,
    seed: int = 1,
    home: Path | None = None,
    **setting: Any,  # noqa: ANN401 (the fields of Setting)
) -> tuple[Task, Images]:
    """A task and its labelled test images, from the names of its parts.

    Args:
        dataset: e.g. ``"openmoji"`` or ``"folder:my_photos"``.
        backbone: e.g. ``"packaged:lite0-minilm"``.
        shots: labelled images per class.
        seed: which of them.
        home: where features are kept; default ``$ADAPTKIT_HOME``.
        setting: further fields of `Setting`.
    """
    workspace = Workspace(Setting(dataset=dataset, backbone=backbone, **setting), home=home)
    return workspace.task(shots, seed), workspace.test()


def compare(
    task: Task,
    test: Images,
    methods: Iterable[Spec],
    *,
    seed: int = 0,
    trainer: Mapping[str, object] | None = None,
) -> Table:
    """Adapt each method to the task, choose its hyperparameters on ``task.val``, and measure it on the test images."""
    rows = [(spec, {} if isinstance(spec, Method) else {"method": label(spec)}) for spec in methods]
    found: Any = [evaluate(method(s), task, test, seed=seed, trainer=trainer, where=where) for s, where in rows]
    return Table([result for each in found for result in (each if isinstance(each, list) else [each])])
