"""The contract on registered methods: what is trained is trained briefly, and large grids are tried in part."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from adaptkit.features.items import Images
from adaptkit.io.values import default
from adaptkit.methods.adapt import accuracy
from adaptkit.methods.method import Method
from adaptkit.methods.schedule import Schedule
from adaptkit.methods.task import Task
from adaptkit.methods.zero_shot import ZeroShot
from adaptkit.runs import plugins
from adaptkit.runs.build import method
from adaptkit.testing.checks import CHECKS, check
from adaptkit.testing.harness import adapted
from adaptkit.testing.kinds import of_its_kind
from adaptkit.testing.toy import toy_task

STEPS = {"beats_chance": (20, 60)}  # of training: as many as it takes; 4 in the other checks
LIVE = 8  # views of pixels, which no cache holds, at most
QUERIES = {"beats_chance": 60, "sweep_matches_forward": 8}  # 20 in the others

HERE = Path(__file__).parent
FEW_VAL: list[Task] = []  # the task that was asked for last, and the same with few validation images


def brief(name: str, steps: int) -> Method:
    """A method as its author means it, but for the length of its training, its base's too, and views of pixels."""
    made = method(name, **briefly(plugins.table("methods")[name], steps))
    live = False
    with contextlib.suppress(Exception):  # of what it needs a check will say it
        live = any(not need.stored and need.views > LIVE for need in made.needs().values())
    return method(name, views=LIVE, **briefly(type(made), steps)) if live and hasattr(made, "views") else made


def briefly(cls: type[Method], steps: int) -> dict[str, Any]:
    """The options of a method that say how long it trains, all the shorter, those of methods below it among them."""
    options: dict[str, Any] = {}
    for f in fields(cls):
        value = default(f)
        if isinstance(value, Schedule):
            options[f.name] = replace(value, steps=steps, warmup=0)
        elif isinstance(value, Method) and (changes := briefly(type(value), steps)):
            kept = {g.name: getattr(value, g.name) for g in fields(value)}
            options[f.name] = type(value)(**{**kept, **changes})
    return options


def check_briefly(name: str, title: str, task: Task, queries: Images) -> None:
    """One check on one method, on few queries and ten validation images.

    Raises:
        AssertionError: when it fails.
    """
    with contextlib.suppress(Exception):  # of a method that cannot be made a check will say it
        task, queries = of_its_kind(brief(name, 0), task, queries)
    task, queries = with_few_val(task), queries[: QUERIES.get(title, 20)]
    *fewer, most = STEPS.get(title, (4,))
    for steps in fewer:
        with contextlib.suppress(AssertionError):  # longer training may do
            return check(title, partial(brief, name, steps), task, queries)
    return check(title, partial(brief, name, most), task, queries)


def with_few_val(task: Task) -> Task:
    """The task, with ten validation images: one object for one task, as those are who share an adaptation."""
    if not FEW_VAL or FEW_VAL[0] is not task:
        FEW_VAL[:] = task, replace(task, val=None if task.val is None else task.val[:10])
    return FEW_VAL[1]


def check_methods(names: Sequence[str]) -> list[dict[str, Any]]:
    """Run every check on every method, print what happened, and return it: a mapping for each method."""
    torch.set_num_threads(1)  # tiny tensors
    task, queries = toy_task()
    found = [check_method(name, task, queries) for name in names]
    failures = sum(len(CHECKS) - len(one["passed"]) for one in found)
    print(f"{len(names)} methods, {len(names) * len(CHECKS) - failures} passed, {failures} failed")
    return found


def check_method(name: str, task: Task, queries: Images) -> dict[str, Any]:
    """Run every check on one method, print what happened, each cause once, and return it by the names of the checks."""
    print(name)
    causes: dict[str, list[str]] = {}
    passed, failed = list[str](), dict[str, str]()
    for title in CHECKS:
        try:
            check_briefly(name, title, task, queries)
            print(f"  passed  {title}")
            passed.append(title)
        except Exception as error:  # whatever a stranger's method raises is its result
            what, where = cause(error, plugins.table("methods")[name])
            failed[title] = f"{what}{where}"
            same = causes.setdefault(where or what, [])  # at one line, the numbers in a sentence may differ
            same.append(title)
            if same == [title]:
                print(f"  FAILED  {title}: {what}{where}")
    for first, *others in causes.values():
        if others:
            print(f"  the failure of {first} kept {len(others)} more from running: {', '.join(others)}")
    comparison = ""
    with contextlib.suppress(Exception):  # what keeps it from answering stands above
        if comparison := beside_zero_shot(name, task, queries):
            print(f"  {comparison}")
    return {"method": name, "passed": passed, "failed": failed, "comparison": comparison}


def cause(error: Exception, cls: type[Method]) -> tuple[str, str]:
    """What went wrong in one line, and, unless a check says so itself, the line of the author's code it came from."""
    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
    frames = traceback.extract_tb(error.__traceback__)
    files = {getattr(sys.modules.get(base.__module__), "__file__", None) for base in cls.__mro__ if is_theirs(base)}
    lines = [frame for frame in frames if frame.filename in files]
    if Path(frames[-1].filename).parent == HERE or not lines:
        return what, ""
    return what, f" ({shown(lines[-1].filename)}:{lines[-1].lineno}, in {lines[-1].name})"


def is_theirs(cls: type) -> bool:
    """Whether a class is an author's, and not the kit's or a library's."""
    return issubclass(cls, Method) and cls.__module__.partition(".")[0] != "adaptkit"


def shown(file: str) -> str:
    """A path as short as it can be opened from here."""
    return str(Path(file).relative_to(Path.cwd())) if Path(file).is_relative_to(Path.cwd()) else file


def beside_zero_shot(name: str, task: Task, queries: Images) -> str:
    """The method's accuracy on the toy task beside zero-shot's; nothing for scores, which have none."""
    task, queries = of_its_kind(brief(name, 0), task, queries)
    few, some = with_few_val(task), queries[: QUERIES["beats_chance"]]
    method = adapted(lambda: brief(name, STEPS["beats_chance"][-1]), few)
    if method.output != "logits" or few.kind != "classification":
        return ""
    ours, theirs = accuracy(method, some), accuracy(adapted(ZeroShot, few), some)
    return f"accuracy on the toy task: {ours:.1%}; of zero-shot: {theirs:.1%}"
