"""The toy task of another kind than classification, for the checks of methods that answer it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from adaptkit.features.items import Images
from adaptkit.features.needs import Frames
from adaptkit.methods.adapt import predict
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from adaptkit.testing.harness import ensure
from adaptkit.testing.toy import passing_home, toy_task


def of_its_kind(method: Method, task: Task, queries: Images) -> tuple[Task, Images]:
    """The task and its queries, or, for a method that does not answer such a task, those of one that it answers."""
    if task.kind in method.answers:
        return task, queries
    if "ordinal" in method.answers:
        return toy_grades()
    if "maps" in method.answers:
        return toy_of("toy-defects")
    if "ranking" not in method.answers or not method.gallery_needs():
        return task, queries
    if any(isinstance(need, Frames) for need in method.gallery_needs().values()):
        return toy_of("toy-sequences")
    return toy_of("toy-alike" if {need.of for need in method.needs().values()} == {"image"} else "toy-pairs")


@cache
def toy_grades() -> tuple[Task, Images]:
    """The toy task, its classes taken for grades."""
    task, queries = toy_task()
    return replace(task, kind="ordinal"), queries


@cache
def toy_of(name: str) -> tuple[Task, Images]:
    """A toy task by name, and its queries."""
    from adaptkit.api import load

    return load(name, backbone="toy:0", shots=8, home=passing_home())


def reordered(task: Task, order: Tensor) -> Task:
    """The task about some of its classes, or items of its gallery, in another order; its images are as they were."""
    names, prompts = tuple(task.classnames[i] for i in order), tuple(task.prompts[i] for i in order)
    gallery = None if task.gallery is None else task.gallery[order]
    return replace(task, classnames=names, labelnames=(), prompts=prompts, gallery=gallery)


def otherwise_labelled(task: Task) -> Task:
    """The task without validation images, as it is learned with other labels, or with another gallery."""
    if task.gallery is not None:
        return replace(reordered(task, torch.arange(len(task.gallery)).flip(0)), val=None)
    if task.kind == "maps":
        strata = evaluation("maps").strata(task.support.targets)  # type: ignore[arg-type]
        return replace(task, support=task.support[first_alike(strata)], val=None)
    wrong = task.support.labels.add(1) % len(task.classnames)  # type: ignore[union-attr]
    return replace(task, support=task.support.label(wrong), val=None)


def first_alike(strata: Tensor) -> Tensor:
    """In the place of each row the first one of its own."""
    return torch.stack([(strata == one).nonzero()[0, 0] for one in strata])


def one_of_each(task: Task) -> Tensor:
    """The first support image of each class, or of what else stands for classes, by their places."""
    labels = evaluation(task.kind).strata(task.support.targets).tolist()  # type: ignore[arg-type]
    return torch.tensor([labels.index(c) for c in sorted({*labels})])


def shape_held(method: Method, task: Task, queries: Images, answers: Tensor) -> None:
    """Answers have a column for each class, or none where they are scores, or what another kind than these takes.

    Raises:
        AssertionError: when they have another shape.
    """
    name, got = type(method).__name__, tuple(answers.shape)
    if task.kind == "maps":
        kind = evaluation(task.kind)
        fit = len(answers) == len(queries) and kind.fits(answers, queries.targets)  # type: ignore[arg-type]
        ensure(fit, f"{name} must return {kind.shape}; got {got}")
        return
    want = (len(queries), len(task.classnames)) if method.output == "logits" else (len(queries),)
    ensure(got == want, f"{name} must return {want}; got {got}")


def better_than_chance(method: Method, queries: Images) -> None:
    """Answers are worth half as much again as chance; of a ranking, so many more queries find an item of theirs first.

    Grades are worth one over their error, and chance is the middle grade for all; who learns from no image may guess.

    Raises:
        AssertionError: when they do not.
    """
    kind, answers, targets = method.evaluation, predict(method, queries), queries.targets
    if kind.kind == "ordinal":
        if not method.support_needs():  # no sentence says which toy is of what grade
            return
        middle = targets.float().quantile(0.5).expand(len(answers))  # type: ignore[union-attr]
        off, chance = (-kind.objective(found, targets) for found in (answers, middle))  # type: ignore[arg-type]
        got, chance = 1 / max(off, 1e-9), 1 / chance
    elif kind.kind == "ranking":  # where several items are right, a reciprocal rank is large by chance
        share = targets.double().mean() if targets.dim() == 2 else 1 / answers.shape[1]  # type: ignore[union-attr]
        got, chance = kind.metrics(answers, targets)["recall@1"], float(share)  # type: ignore[arg-type]
    else:
        noise = torch.rand(answers.shape, generator=torch.Generator().manual_seed(0))
        got, chance = (kind.objective(found, targets) for found in (answers, noise))  # type: ignore[arg-type]
    ensure(got > 1.5 * chance, f"{type(method).__name__} is worth {got:.2f}, and chance {chance:.2f}: guessing")
