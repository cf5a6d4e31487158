"""The contract on registered methods: what is trained is trained briefly, and large grids are tried in part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch

from adaptkit.features.items import Images
from adaptkit.io.values import default
from adaptkit.methods.method import Method
from adaptkit.methods.schedule import Schedule
from adaptkit.methods.task import Task
from adaptkit.runs import plugins
from adaptkit.runs.build import method
from adaptkit.testing.checks import CHECKS, check
from adaptkit.testing.toy import toy_task

STEPS = {"beats_chance": 60}  # of training; 4 in the other checks
QUERIES = {"beats_chance": 60, "sweep_matches_forward": 8}  # 20 in the others

FEW: list[Task] = []  # the task that was asked for last, and the same with few validation images


def brief(name: str, steps: int) -> Method:
    """A method as its author means it, but for the length of its training."""
    options = {f.name: default(f) for f in fields(plugins.table("methods")[name])}
    return method(name, **{n: replace(s, steps=steps, warmup=0) for n, s in options.items() if isinstance(s, Schedule)})


def check_briefly(name: str, title: str, task: Task, queries: Images) -> None:
    """One check on one method, on few queries and ten validation images.

    Raises:
        AssertionError: when it fails.
    """
    check(title, lambda: brief(name, STEPS.get(title, 4)), with_few_val(task), queries[: QUERIES.get(title, 20)])


def with_few_val(task: Task) -> Task:
    """The task, with ten validation images: one object for one task, as those are who share an adaptation."""
    if not FEW or FEW[0] is not task:
        FEW[:] = task, replace(task, val=None if task.val is None else task.val[:10])
    return FEW[1]


def check_methods(names: Sequence[str]) -> int:
    """Run every check on every method, print what happened, and return the exit code: 1 when one failed."""
    torch.set_num_threads(1)  # tiny tensors
    task, queries = toy_task()
    failures = 0
    for name in names:
        print(name)
        for title in CHECKS:
            try:
                check_briefly(name, title, task, queries)
                print(f"  passed  {title}")
            except Exception as error:  # whatever a stranger's method raises is its result
                failures += 1
                print(f"  FAILED  {title}: {type(error).__name__}: {' '.join(str(error).split())}")
    print(f"{len(names)} methods, {len(names) * len(CHECKS) - failures} passed, {failures} failed")
    return 1 if failures else 0
