"""Adapt, tune, predict: the three verbs, for every kind of method."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from adaptkit.features.items import Images
from adaptkit.io.notices import notice
from adaptkit.io.paths import expanded
from adaptkit.methods.checkpoints import forget_trainings, keeping
from adaptkit.methods.explore import explore, trying
from adaptkit.methods.method import Method, trainable
from adaptkit.methods.predicting import accuracy as accuracy
from adaptkit.methods.predicting import answered
from adaptkit.methods.predicting import predict as predict
from adaptkit.methods.queries import check_asked, solvable
from adaptkit.methods.search import count
from adaptkit.methods.searched import Search, warn_of_edges
from adaptkit.methods.settle import settle
from adaptkit.methods.task import Task
from adaptkit.methods.unlabelled import pool_reads
from adaptkit.methods.widening import Widening, known_search


def adapt(
    method: Method,
    task: Task,
    *,
    trainer: Mapping[str, object] | None = None,
    search: Widening = "paper",
    checkpoint: Path | str | None = None,
) -> Method:
    """Fit a method, train whatever `fit` left trainable, and choose the hyperparameters of its grid on ``task.val``.

    Its ``base`` is adapted first and then frozen. An `EdgeOfGridWarning` says where a search ended at an edge.

    Args:
        method: as constructed; it is changed and returned.
        task: what it may learn from. Without ``val`` the hyperparameters stay as they are.
        trainer: options for `pytorch_lightning.Trainer`, passed on unchanged.
        search: ``"widen"`` goes on beyond an edge until the best cell lies inside, at most five times for each option.
        checkpoint: a folder where the state of a training is kept after its epochs. Killed and started again, with the
            same ``torch.manual_seed`` before it, it goes on from there to the same bits; it is empty afterwards.

    Raises:
        ValueError: when the task lacks what the method reads, e.g. support images to train on.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> gda = ak.adapt(ak.method("gda"), task)
    >>> ak.predict(gda, test).shape
    torch.Size([60, 5])
    """
    folder = None if checkpoint is None else expanded(str(checkpoint))
    with keeping(folder):
        adapt_quietly(method, task, trainer=trainer, search=search)
    if folder:
        forget_trainings(folder)
    warn_of_edges(method)
    return method


def adapt_quietly(
    method: Method, task: Task, *, trainer: Mapping[str, object] | None = None, search: Widening = "paper"
) -> Method:
    """`adapt`, for who tells of edges otherwise."""
    check_asked(method, task, trainer)
    _adapt(method, task, trainer, known_search(search))
    for group in task.alike if by_text_alone(method) else ():
        named = ", ".join(map(repr, group))
        notice(f"{type(method).__name__} cannot tell apart {named}: they have one text, and it learns from no image")
    return method


def _adapt(method: Method, task: Task, trainer: Mapping[str, object] | None, search: Widening) -> Method:
    method.set_kind(task.kind)
    method.set_width(task, anew=True)
    method._search, method._searched = search, {}
    below = method.base_task(task)
    for child in method.children_methods():
        _adapt(child, below, trainer, search).requires_grad_(False)
    _learn(method, method.fit, task, trainer)
    if method.grid() and task.val is not None:
        tune(method, task.val, search=search)
    return method


def by_text_alone(method: Method) -> bool:
    """Whether a method tells classes apart by the task's sentences alone: by no labelled image, and by no others."""
    own_sentences = any(getattr(m, "file", "") for m in method.modules())
    learns = method.all_needs(of_support=True) or pool_reads(method)
    return method.output == "logits" and not own_sentences and not learns


def extend(method: Method, task: Task, *, trainer: Mapping[str, object] | None = None) -> Method:
    """Let an adapted method learn the next task of a sequence; see `Method.extend`. Its hyperparameters stay.

    Args:
        method: adapted to the tasks before; it is changed and returned.
        task: what it may learn from: all classes seen so far, and labelled images of the new ones.
        trainer: options for `pytorch_lightning.Trainer`, passed on unchanged.
    """
    below = method.base_task(task)
    for child in method.children_methods():
        extend(child, below, trainer=trainer).requires_grad_(False)
    method.set_width(task)
    _learn(method, method.extend, task, trainer)
    return method


def _learn(method: Method, solve: Callable[[Task], None], task: Task, trainer: Mapping[str, object] | None) -> None:
    """Solve what has a closed form, and train whatever that left trainable."""
    method.train()
    for child in method.children_methods():
        child.eval()  # frozen: it answers as it will at prediction
    bound = task.bind(method)
    bound.support.fill()
    if hasattr(method, "schedule"):  # it is trained: what `solve` begins with is read again in every epoch
        bound = replace(bound, support=bound.support.load())
    with solvable(method):
        solve(bound)
    method.to(task.support.device)
    if trainable(method):
        from adaptkit.methods.train import train

        train(method, bound, trainer or {})
    method.eval()
    settle(method)


def retarget(method: Method, task: Task) -> Method:
    """A copy of an adapted method that answers for the classes of another task; see `Method.retarget`."""
    method = copy.deepcopy(method).requires_grad_(False)

    def turn(m: Method) -> None:
        for child in m.children_methods():
            turn(child)
        m.set_width(task)
        m.retarget(task.bind(m))

    turn(method)
    method.to(task.support.device).eval()
    settle(method)
    return method


@torch.no_grad()
def refit(method: Method, values: Mapping[str, float]) -> None:
    """Set hyperparameters of an adapted method; it answers as if it had been made with them. See `Method.refit`."""
    method.refit(values)
    settle(method)


@torch.no_grad()
def tune(method: Method, val: Images, *, search: Widening = "paper") -> Search:
    """Set the grid's hyperparameters to those that do best on `val`; of equally good cells the first wins.

    Best is by the objective of the method's `evaluation`; for classification right answers are counted.

    Args:
        method: adapted; it is changed.
        val: labelled images.
        search: as in `adapt`.

    Returns:
        What was chosen, the right answers in each cell, and where in its grid each value lies.

    Raises:
        ValueError: when there are no labelled images.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> tip = ak.adapt(ak.method("tip-adapter", search_steps=(5, 4)), task)
    >>> search = ak.tune(tip, test)  # to see the best that any cell can do
    >>> search.correct.shape, sorted(search.values)
    (torch.Size([5, 4]), ['alpha', 'beta'])
    """
    val = val.bind(method.needs()).load()
    if (targets := val.targets) is None or not len(val):
        raise ValueError(f"validation images must be labelled and at least one; got {val}")

    def score(grid: Mapping[str, Sequence[float]]) -> Tensor:
        with trying(method, grid):
            if method.evaluation.kind == "classification":
                return count(method.sweep(val.blind()) or cell_by_cell(method, val.blind()), grid, targets)
            worth = [method.evaluation.objective(answers, targets) for answers in cell_by_cell(method, val.blind())]
            return torch.tensor(worth, dtype=torch.double).view([len(values) for values in grid.values()])

    with solvable(method):
        found = explore(method, method.grid(), score, len(val), search=search)
        refit(method, found.values)  # so that the answers are those of the values on record
    return found


def cell_by_cell(method: Method, val: Images) -> Iterator[Tensor]:
    """The logits of `val` at every cell of the grid, in order."""
    grid = method.grid()
    for cell in itertools.product(*grid.values()):
        refit(method, dict(zip(grid, cell, strict=True)))
        yield answered(method, val)
