"""The check that a search is one: what a grid tries reaches the answers, and what is recorded is what answers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from adaptkit.features.items import Images
from adaptkit.methods.adapt import adapt_quietly, predict, refit
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from adaptkit.testing.harness import Make, adapted, ensure, same


def grid_reaches_answers(make: Make, task: Task, queries: Images) -> None:
    """Refitted to a value of its grid, a method answers as one that was made with it, and not as with every other."""
    if type(make()).grid is Method.grid:
        return
    method, name = adapted(make, task), type(make()).__name__
    grid = method.grid()
    chosen = {option: getattr(method, option) for option in grid}
    again = refitted(method, chosen, queries)
    same(again, predict(method, queries), f"{name} answers otherwise once it is refitted to the values it has", 1e-4)
    alone = replace(task, val=None)
    start = fitted(make, alone, {})
    for option, values in grid.items():
        for value in some(values):
            want = predict(fitted(make, alone, {option: value}), queries)
            what = f"{name}'s fit reads {option!r}, which its grid searches; override refit(values) to solve again"
            same(refitted(start, {option: value}, queries), want, f"{what} for {option}={value:.4g}", 1e-4)
        answers = [refitted(method, {option: value}, queries) for value in some(values)]
        heard = len(answers) == 1 or any(not torch.equal(answer, answers[0]) for answer in answers)
        ensure(heard, f"{name} answers the same for all values of {option!r}; take it out of the grid, or read it")


def some(values: Sequence[float]) -> list[float]:
    """The first, the middle and the last."""
    return list(dict.fromkeys((values[0], values[len(values) // 2], values[-1])))


def refitted(method: Method, values: Mapping[str, float], queries: Images) -> Tensor:
    """What a copy of the method answers once it is refitted."""
    other = copy.deepcopy(method)
    refit(other, values)
    return predict(other, queries)


def fitted(make: Make, task: Task, values: Mapping[str, float]) -> Method:
    """The method, made with these values and fitted from a fixed seed, but not trained: training is not done again."""
    torch.manual_seed(0)
    method = make()
    method.set(values)
    for child in method.children_methods():
        adapt_quietly(child, task)
    method.train()
    for child in method.children_methods():
        child.eval()
    method.fit(task.bind(method))
    return method.to(task.support.device).requires_grad_(False).eval()
