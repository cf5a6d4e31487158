"""Checks of the verbs: how they are spelt, and what may be defined besides `fit` and `forward`."""

from __future__ import annotations

import copy
import inspect
import itertools
from dataclasses import replace
from difflib import get_close_matches
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor

from adaptkit.features.items import Images
from adaptkit.methods.adapt import extend, predict, retarget
from adaptkit.methods.method import Method
from adaptkit.methods.search import unfold
from adaptkit.methods.task import Task
from adaptkit.runs.build import answers_elsewhere
from adaptkit.testing.harness import Make, adapted, ensure, same
from adaptkit.testing.kinds import reordered, shape_held

READS, LEARNS = (
    ("forward", "needs", "support_needs", "pool_needs", "gallery_needs", "training_images"),
    ("fit", "loss", "parameter_groups", "callbacks"),
)
VERBS = (*LEARNS, *READS, "base_task", "grid", "sweep", "replay", "retarget", "extend", "set")
"""What the kit calls."""
ELSEWHERE = {"predict": "forward", "predict_proba": "forward", "transform": "forward", "training_step": "loss"}
"""What other libraries call."""


def verbs_are_spelt(make: Make, task: Task, queries: Images) -> None:
    """What is named almost like a verb, and called by nobody, would be passed over in silence."""
    cls = type(make())
    ours = [base for base in cls.__mro__ if base.__module__.startswith("adaptkit.")]
    own = [base for base in cls.__mro__ if issubclass(base, Method) and base not in ours]
    made = [(name, function_of(value)) for base in own for name, value in vars(base).items()]
    defined = {name for name, function in made if function}
    called = {name for _, function in made if function for name in names_in(function.__code__)}
    known = {*dir(Method)}.union(*map(vars, ours))  # what a base of the kit's own has, that base calls
    for name in sorted(defined - called - known):
        near = [ELSEWHERE[name]] if name in ELSEWHERE else get_close_matches(name, VERBS, n=1, cutoff=0.75)
        ensure(
            not near or near[0] in defined,
            f"what {cls.__name__} defines must be a verb, {', '.join(VERBS)}, or be called; "
            f"got {name!r}, which nobody calls; did you mean {''.join(near)!r}?",
        )


def function_of(value: Any) -> FunctionType | None:  # noqa: ANN401 (any attribute of a class)
    """The function behind an attribute of a class, under decorators and properties."""
    inner = inspect.unwrap(getattr(value, "fget", None) or getattr(value, "__func__", value))
    return inner if isinstance(inner, FunctionType) else None


def names_in(code: CodeType) -> set[str]:
    """Every name that code reads, functions inside it included."""
    inside = (names_in(part) for part in code.co_consts if isinstance(part, CodeType))
    return {*code.co_names}.union(*inside)


def other_classes(make: Make, task: Task, queries: Images) -> None:
    """What answers for classes that it did not adapt to answers for any number, in whatever order they are named."""
    method, name, answers = adapted(make, task), type(make()).__name__, []
    if not answers_elsewhere(method):
        return
    some = torch.randperm(len(task.classnames) - 1, generator=torch.Generator().manual_seed(3))  # one class less
    for order in (some, some.sort().values):
        elsewhere = replace(reordered(task, order), support=task.support[:0], val=None)
        torch.manual_seed(0)
        answers.append(predict(retarget(method, elsewhere), queries))
    permuted, plain = answers
    shape_held(method, elsewhere, queries, plain)
    want_again = plain[:, some] if plain.dim() == 2 else plain
    same(permuted, want_again, f"{name} depends on the order in which other classes are named")


def next_task(make: Make, task: Task, queries: Images) -> None:
    """What learns another task answers for the classes of both by then, and has changed nothing of the backbone."""
    name, first = type(make()).__name__, (len(task.classnames) + 1) // 2
    if type(make()).extend is Method.extend:
        return
    labels: Tensor = task.support.labels  # type: ignore[assignment]
    before = task.backbone.digest()
    earlier = {"classnames": task.classnames[:first], "prompts": task.prompts[:first], "labelnames": ()}
    parts = [task.support[rows.nonzero()[:, 0]] for rows in (labels < first, labels >= first)]
    method = adapted(make, replace(task, **earlier, support=parts[0], val=None), anew=True)  # type: ignore[arg-type]
    extend(method, replace(task, support=parts[1], val=None))
    out, want = predict(method, queries), (len(queries), len(task.classnames))
    ensure(out.shape == want, f"{name} must return {want} after another task; got {tuple(out.shape)}")
    same(predict(method, queries), out, f"{name} answers differently the second time after another task", 1e-6)
    ensure(task.backbone.digest() == before, f"{name} changed the frozen backbone by another task")


def sweep_matches_forward(make: Make, task: Task, queries: Images) -> None:
    """A shortcut through the grid gives what `forward` gives, cell by cell."""
    if type(make()).sweep is Method.sweep:
        return
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
    if type(make()).replay is Method.replay:
        return
    method, name = adapted(make, task), type(make()).__name__
    rows, early = queries.bind(method.needs()).load().blind(), len(queries) // 3
    with torch.no_grad():
        fast, slow = copy.deepcopy(method), Method.replay(copy.deepcopy(method), rows)
        same(fast.replay(rows[:early]), slow[:early], f"{name}'s replay of {early} images", 1e-5)
        same(fast.replay(rows[early:]), slow[early:], f"{name}'s replay of those behind them", 1e-5)
        same(copy.deepcopy(method).replay(rows), slow, f"{name}'s replay of all", 1e-5)
