"""Adapt, tune, predict: the three verbs, for every kind of method."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adaptkit.features.items import Array, Images
from adaptkit.methods.method import Method, adapted_first
from adaptkit.methods.search import count
from adaptkit.methods.task import Task


@dataclass(frozen=True)
class Search:
    """What a search on validation images saw.

    Attributes:
        values: the cell that was chosen.
        correct: right answers in each cell, shaped like the grid.
        total: validation images.
    """

    values: Mapping[str, float]
    correct: Tensor
    total: int


def adapt(method: Method, task: Task, *, trainer: Mapping[str, object] | None = None) -> Method:
    """Fit a method, train whatever `fit` left trainable, and choose the hyperparameters of its grid on ``task.val``.

    Methods that it is built over (``base``) are adapted first and then frozen.

    Args:
        method: as constructed; it is changed and returned.
        task: what it may learn from. Without ``val`` the hyperparameters stay as they are.
        trainer: options for `pytorch_lightning.Trainer`, passed on unchanged.
    """
    for child in method.children_methods():
        adapt(child, task, trainer=trainer).requires_grad_(False)
    method.train()
    for child in method.children_methods():
        child.eval()  # frozen: it answers as it will at prediction
    bound = task.bind(method)
    method.fit(bound)
    method.to(task.support.device)
    if trainable(method):
        from adaptkit.methods.train import train

        train(method, bound, trainer or {})
    method.eval()
    if method.grid() and task.val is not None:
        tune(method, task.val)
    return method


def retarget(method: Method, task: Task) -> Method:
    """A copy of an adapted method that answers for the classes of another task; see `Method.retarget`."""
    method = copy.deepcopy(method).requires_grad_(False)

    def turn(m: Method) -> None:
        for child in m.children_methods():
            turn(child)
        m.retarget(task.bind(m))

    turn(method)
    return method.to(task.support.device).eval()


@torch.no_grad()  # not inference_mode: test-time methods take gradients inside
def predict(method: Method, images: Images | Array | Mapping[str, Array], *, batch_size: int = 0) -> Tensor:
    """``(N, C)`` logits or ``(N,)`` scores. Never shows labels; never changes `method`.

    Args:
        method: adapted.
        images: `Images`, or features ``(N, D)`` or ``(N, V, D)``, or pixels ``(N, 3, H, W)``; see
            `Images.from_arrays`.
        batch_size: rows at a time, unless the `scope` is ``"set"``; 0 means 1024, or 32 through a tower.
    """
    queries = images if isinstance(images, Images) else from_arrays(method, images)
    queries = queries.blind().bind(method.needs())
    if method.scope == "stream":
        method = copy.deepcopy(method)
    rows = batch_size or (1024 if all(need.stored for need in method.all_needs()) else 32)
    size = {"sample": rows, "stream": rows, "set": max(1, len(queries))}[method.scope]
    parts = [queries[i : i + size] for i in range(0, max(1, len(queries)), size)]
    if method.scope == "stream":
        with adapted_first(method):
            return torch.cat([method.replay(part.load()) for part in parts])
    return torch.cat([method(part) for part in parts])


@torch.no_grad()
def tune(method: Method, val: Images) -> Search:
    """Set the grid's hyperparameters to those that do best on `val`; of equally good cells the first wins."""
    grid = method.grid()
    val = val.bind(method.needs()).load()
    if val.labels is None or not len(val):
        raise ValueError(f"validation images must be labelled and at least one; got {val}")
    correct = count(method.sweep(val.blind()) or cell_by_cell(method, val.blind()), grid, val.labels)
    cell = next(itertools.islice(itertools.product(*grid.values()), int(correct.argmax()), None))
    best = dict(zip(grid, cell, strict=True))
    method.set(best)
    return Search(best, correct, len(val))


def cell_by_cell(method: Method, val: Images) -> Iterator[Tensor]:
    """The logits of `val` at every cell of the grid, in order."""
    grid = method.grid()
    for cell in itertools.product(*grid.values()):
        method.set(dict(zip(grid, cell, strict=True)))
        yield predict(method, val)


def accuracy(method: Method, images: Images) -> float:
    """Share of right answers, between 0 and 1."""
    if images.labels is None:
        raise ValueError("images must have labels to measure accuracy; got none")
    return float((predict(method, images).argmax(-1) == images.labels).double().mean())


def trainable(method: Method) -> int:
    """How many numbers training would change."""
    return sum(p.numel() for p in method.parameters() if p.requires_grad)


def from_arrays(method: Method, arrays: Array | Mapping[str, Array]) -> Images:
    """Arrays as images, read on the method's device, encoded by its backbone when they are pixels."""
    images = Images.from_arrays(arrays)
    images.rows.backbone = next((b for m in method.modules() if (b := getattr(m, "backbone", None))), None)  # type: ignore[attr-defined]
    held = next(itertools.chain(method.parameters(), method.buffers()), None)
    return images if held is None else images.to(held.device)
