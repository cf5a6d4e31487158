"""Checks of what a method may define besides `fit` and `forward`: `retarget`, `sweep` and `replay`."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import torch

from adaptkit.features.items import Images
from adaptkit.methods.adapt import predict, retarget
from adaptkit.methods.method import Method
from adaptkit.methods.search import unfold
from adaptkit.methods.task import Task
from adaptkit.runs.build import answers_elsewhere
from adaptkit.testing.harness import Make, adapted, ensure, same


def other_classes(make: Make, task: Task, queries: Images) -> None:
    """What answers for classes that it did not adapt to answers for any number, in whatever order they are named."""
    method, name, answers = adapted(make, task), type(make()).__name__, []
    if not answers_elsewhere(method):
        return
    some = torch.randperm(len(task.classnames) - 1, generator=torch.Generator().manual_seed(3))  # one class less
    for order in (some, some.sort().values):
        names, prompts = tuple(task.classnames[i] for i in order), tuple(task.prompts[i] for i in order)
        elsewhere = replace(task, classnames=names, prompts=prompts, support=task.support[:0], val=None)
        torch.manual_seed(0)
        answers.append(predict(retarget(method, elsewhere), queries))
    permuted, plain = answers
    want = (len(queries), len(some)) if method.output == "logits" else (len(queries),)
    ensure(plain.shape == want, f"{name} must return {want} for other classes; got {tuple(plain.shape)}")
    want_again = plain[:, some] if plain.dim() == 2 else plain
    same(permuted, want_again, f"{name} depends on the order in which other classes are named")


def sweep_matches_forward(make: Make, task: Task, queries: Images) -> None:
    """A shortcut through the grid gives what `forward` gives, cell by cell."""
    method = adapted(make, task)
    rows, grid, name = queries.bind(method.needs()).load().blind(), method.grid(), type(method).__name__
    with torch.no_grad():
        swept = method.sweep(rows) if grid else None
        if swept is None:
            return
        cells, fast, slow = (
            list(itertools.product(*grid.values())),
            unfold(swept, grid, len(rows)),
            copy.deepcopy(method),
        )
        for i in range(0, len(cells), 1 + len(cells) // 50):  # a grid may have hundreds
            slow.refit(dict(zip(grid, cells[i], strict=True)))
            same(fast[i], predict(slow, rows), f"cell {i} of {name}'s sweep", 1e-5)


def replay_matches_forward(make: Make, task: Task, queries: Images) -> None:
    """Images of a stream that are answered at once are answered as one by one, whatever comes behind them."""
    method, name = adapted(make, task), type(make()).__name__
    if type(method).replay is Method.replay:
        return
    rows, early = queries.bind(method.needs()).load().blind(), len(queries) // 3
    with torch.no_grad():
        fast, slow = copy.deepcopy(method), Method.replay(copy.deepcopy(method), rows)
        same(fast.replay(rows[:early]), slow[:early], f"{name}'s replay of {early} images", 1e-5)
        same(fast.replay(rows[early:]), slow[early:], f"{name}'s replay of those behind them", 1e-5)
        same(copy.deepcopy(method).replay(rows), slow, f"{name}'s replay of all", 1e-5)
