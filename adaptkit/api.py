"""A task from the names of its parts, and several methods side by side on one task."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from adaptkit.features.items import Images
from adaptkit.io.ranges import Seed, Shots, hold
from adaptkit.io.shots import ALL_SHOTS
from adaptkit.io.values import Spec
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from adaptkit.methods.widening import Widening
from adaptkit.report.table import Table
from adaptkit.runs.build import AnyMethod, method
from adaptkit.runs.evaluate import evaluate
from adaptkit.runs.setting import Setting
from adaptkit.runs.workspace import Workspace


def load(
    dataset: str,
    *,
    backbone: str = "hf:openai/clip-vit-base-patch16",
    shots: int | Literal["all"] = 16,
    seed: int = 1,
    home: Path | None = None,
    **setting: Any,  # noqa: ANN401 (the fields of Setting)
) -> tuple[Task, Images]:
    """A task and its labelled test images, from the names of its parts.

    Args:
        dataset: e.g. ``"openmoji"`` or ``"folder:my_photos"``.
        backbone: e.g. ``"packaged:lite0-minilm"``.
        shots: labelled images per class, or ``"all"`` of them.
        seed: which of them.
        home: where features are kept; default ``$ADAPTKIT_HOME``.
        setting: further fields of `Setting`, e.g. ``select="none"``; `prompts` and `support` as recipes write them,
            e.g. ``support={"indices": {"path": "mine.json"}}``.

    Returns:
        The task, and the N test images of its classes; features are computed when they are first read.

    Raises:
        ValueError: for a name or an option that no plugin has, with the nearest that one has.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> len(task.classnames), len(task.support), len(test)
    (5, 10, 60)
    """
    count = ALL_SHOTS if isinstance(shots, str) and shots == "all" else shots
    if count != ALL_SHOTS:
        hold(count, Shots, "shots")
    hold(seed, Seed, "seed")
    workspace = Workspace(Setting(dataset=dataset, backbone=backbone, **setting), home=home)
    for note in workspace.others.notes:
        warnings.warn(note, stacklevel=2)
    return workspace.task(count, seed), workspace.test()


def compare(
    task: Task,
    test: Images,
    methods: Iterable[AnyMethod],
    *,
    seed: int = 0,
    trainer: Mapping[str, object] | None = None,
    search: Widening = "paper",
) -> Table:
    """Adapt each method to the task, choose its hyperparameters on ``task.val``, and measure it on the test images.

    Args:
        task: what is learned from.
        test: labelled images.
        methods: each a name, a name with options, or a method, which is left as it is.
        seed: of training, and of the order in which streams meet the images.
        trainer: options for `pytorch_lightning.Trainer`, passed on unchanged.
        search: ``"widen"`` lets searches go on beyond the edges of their grids; see `adapt`.

    Returns:
        A table with a row for each method; ``table.frame()`` is a pandas table, with accuracy between 0 and 1.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> table = ak.compare(task, test, ["zero-shot", {"gda": {"alpha": 2.0}}])
    >>> [result.method for result in table]
    ['zero-shot', 'gda(alpha=2.0)']
    """
    if not isinstance(methods, Iterable) or isinstance(methods, str | Mapping):
        raise ValueError(f"methods must be a list, e.g. ['zero-shot', 'gda']; got {methods!r:.80}")
    rows = [(spec, {} if isinstance(spec, Method) else {"method": Spec.of(spec).label}) for spec in methods]
    how: Any = {"seed": seed, "trainer": trainer, "search": search}
    found: Any = [evaluate(method(spec), task, test, where=where, **how) for spec, where in rows]
    return Table([result for each in found for result in (each if isinstance(each, list) else [each])])
