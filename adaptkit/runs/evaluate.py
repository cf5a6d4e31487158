"""One cell: adapt a method to a task, answer the test images, and compare with the labels, which nothing else sees."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, TypedDict, Unpack, overload

import torch
from torch import Tensor

from adaptkit import __version__
from adaptkit.features.cache import CachedRows
from adaptkit.features.items import Images
from adaptkit.io.errors import must_be
from adaptkit.io.files import digest
from adaptkit.methods.adapt import adapt_quietly, by_text_alone, extend, retarget
from adaptkit.methods.declared import kinds_answered
from adaptkit.methods.method import Method, trainable
from adaptkit.methods.queries import check_asked
from adaptkit.methods.searched import searched
from adaptkit.methods.task import Task
from adaptkit.methods.widening import Widening
from adaptkit.runs.build import answers_elsewhere
from adaptkit.runs.costs import Clock, extraction_cost, peak_memory
from adaptkit.runs.evaluation_sets import EvaluationSet, as_sets, requested
from adaptkit.runs.judging import Answers, answer, judge
from adaptkit.runs.results import Result
from adaptkit.towers import threads


class How(TypedDict, total=False):
    """How a cell is evaluated.

    Attributes:
        seed: of training and of the stream's order.
        trainer: options for Lightning's Trainer.
        search: whether searches go on beyond the edges of their grids; see `adapt`.
        bins: numbers of labelled images that part few-shot from medium-shot from many-shot classes; see `Setting`.
        keep: given each test set's name and answers.
        note: given the step, the task, and each test set with what is kept of the answers to it; see `Answers.kept`.
        where: further fields of the `Result`.
    """

    seed: int
    trainer: Mapping[str, object] | None
    search: Widening
    bins: tuple[int, int] | None
    keep: Callable[[str, Tensor], object] | None
    note: Callable[[int, Task, EvaluationSet, dict[str, Tensor]], object] | None
    where: Mapping[str, Any]


Tests = Images | Sequence[EvaluationSet]


@overload
def evaluate(adapting: Method, task: Task, tests: Tests, **how: Unpack[How]) -> Result: ...
@overload
def evaluate(adapting: Method, task: Sequence[Task], tests: Sequence[Tests], **how: Unpack[How]) -> list[Result]: ...
def evaluate(
    adapting: Method, task: Task | Sequence[Task], tests: Tests | Sequence[Tests], **how: Unpack[How]
) -> Result | list[Result]:
    """One cell: adapt, predict, and compare with the targets, which nothing else sees.

    Args:
        adapting: as constructed; it is left so.
        task: what it may learn from; or several such tasks, which it learns one after another.
        tests: test sets, the task's own first; or its test images with their targets, which a stream meets shuffled. Of
            several tasks, as many of these: what is asked after each.
        how: see `How`.

    Returns:
        A result; of several tasks a list of them, one after each.
    """
    several = isinstance(task, list | tuple)
    for each in task if several else [task]:  # type: ignore[union-attr]
        check_asked(adapting, each, how.get("trainer"))
    if several:
        return _evaluate(adapting, list(task), list(tests), how)  # type: ignore[arg-type]
    return _evaluate(adapting, [task], [tests], how)[0]  # type: ignore[list-item]


def _evaluate(adapting: Method, tasks: Sequence[Task], tests: Sequence[Tests], how: How) -> list[Result]:
    if odd := sorted({*how} - {*How.__annotations__}):
        raise TypeError(must_be("an argument of evaluate", How.__annotations__, odd[0]))
    asked = [as_sets(each) for each in tests]
    if len(asked) != len(tasks) or not tasks:
        raise ValueError(f"tests must be as many as the tasks, at least one; got {len(asked)} and {len(tasks)}")
    torch.manual_seed(how.get("seed", 0))
    with threads.sized(len(asked[-1][0].images) * tasks[-1].backbone.dim * len(tasks[-1].classnames)):
        return list(_steps(copy.deepcopy(adapting), tasks, asked, how))


def check_able(methods: Mapping[str, Method], kind: str, sequence: int = 1) -> None:
    """Methods, by label, answer a kind of task, and learn one task after another where there are several.

    Raises:
        ValueError: naming the first that does not.
    """
    for label, built in methods.items():
        for each in (m for m in built.modules() if isinstance(m, Method)):
            if kind not in (known := kinds_answered(each)):
                got = f"{label!r}, which answers {' or '.join(known)}"
                raise ValueError(f"methods must answer {kind}, as the dataset asks; got {got}")
            if sequence > 1 and type(each).extend is Method.extend and each.support_needs():
                raise ValueError(f"methods must define extend(task) in a sequence of tasks; got {label!r}")
        if sequence > 1 and built.output == "score":
            raise ValueError(f"methods must answer with logits in a sequence of tasks; got {label!r}")


def _steps(
    adapted: Method, tasks: Sequence[Task], asked: Sequence[Sequence[EvaluationSet]], how: How
) -> Iterator[Result]:
    """What stands in the record after each task."""
    named = repr(adapted)
    for step, (task, tests) in enumerate(zip(tasks, asked, strict=True), 1):
        clock = Clock(tests[0].images)
        if step == 1:
            adapt_quietly(adapted, task, trainer=how.get("trainer"), search=how.get("search", "paper"))
        else:
            extend(adapted, task, trainer=how.get("trainer"))
        seconds, parameters = {"fit": clock.lap()}, trainable(adapted)
        answers, tests = dict[str, Answers](), requested(tests, adapted.output)
        if len(tasks) > 1 and not answers_elsewhere(adapted):
            tests = [tested for tested in tests if not tested.task]
        for tested in tests:
            asks = adapted if tested.task is None else retarget(adapted, tested.task)
            answers[tested.name] = answer(asks, task, tested, how.get("seed", 0), clock, whole=bool(how.get("keep")))
            seconds.setdefault("predict", clock.lap())  # of the task's own test images
        if note := how.get("note"):
            for tested in tests:
                note(step, task, tested, answers[tested.name].kept(task.kind))
        judged = judge(adapted, task, tests, answers, how.get("bins"), how.get("keep"))
        kind = {} if task.kind == "classification" else {"protocol": {"kind": task.kind}}
        yield Result(
            **{"method": named, "seed": how.get("seed", 0), **kind, **judged, **(how.get("where") or {})},
            parameters=parameters,
            seconds={**seconds, "extract": extraction_cost(adapted, task, tests)},
            memory=peak_memory(),
            support=support_digest(task.support),
            options=repr(adapted),
            searched=searched(adapted),
            versions=versions(),
            alike=task.alike if by_text_alone(adapted) else [],
            step=step if len(tasks) > 1 else 0,
        )


def support_digest(support: Images) -> str:
    """Digest of the labelled images' content and labels, in order; "" for images that exist as arrays only."""
    if not isinstance(support.rows, CachedRows) or support.labels is None:
        return ""
    rows = zip(support.index.tolist(), support.labels.tolist(), strict=True)
    return digest("\n".join(f"{support.rows.source.key(i)} {y}" for i, y in rows).encode())


@cache
def versions() -> dict[str, str]:
    """Of what makes the numbers."""
    packages = ("torch", "transformers", "scikit-learn", "torchmetrics", "numpy", "scipy")
    return {"adaptkit": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}
