"""What one cell comes to: its record and what lies beside it, as values. Nothing is written here."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from adaptkit.methods.checkpoints import keeping
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from adaptkit.runs import guard
from adaptkit.runs.build import method
from adaptkit.runs.circumstances import circumstances, code_file, code_name
from adaptkit.runs.evaluate import evaluate
from adaptkit.runs.failures import Failure, cause_of, file_of, interrupted, out_of_memory
from adaptkit.runs.opened import Opened, opened, reopen
from adaptkit.runs.protocol import Cell, tag_in
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.results import Result
from adaptkit.runs.supports import images_per_class, support_file
from adaptkit.runs.told import Telling, told_files

Kept = Callable[[str], bool]
"""Whether a file, by its path from the folder of records, is there already."""


@dataclass(frozen=True)
class Job:
    """One cell of a recipe: a value, which any process that has the dataset and the plugins can do."""

    recipe: Recipe
    cell: Cell


@dataclass(frozen=True)
class Made:
    """What a cell has come to: a value, which whoever keeps the records writes.

    Attributes:
        name: of the cell on disk.
        outcome: a result for each step of a sequence of tasks, one elsewhere; or why there is none.
        files: by their paths from the folder of records, in the order in which they are written: the last says that the
            cell is done, or has failed.
    """

    name: str
    outcome: list[Result] | Failure
    files: Mapping[str, bytes]


@dataclass
class Cellwork:
    """What is known of a cell while it is worked on."""

    built: Method | None = None
    answers: dict[str, Tensor] = field(default_factory=dict)
    told: Telling = field(default_factory=Telling)


def make(job: Job, home: Path, kept: Kept) -> Made:
    """Do one cell, wherever its records are kept: doing it again is harmless, and so is being killed.

    What cells share, the dataset and the towers, is opened once in a process; a cell that changed it has failed, and
    the next one finds it opened anew.

    Args:
        job: what to do.
        home: where features are kept.
        kept: which files need not be made again.

    Raises:
        ValueError: when the recipe as a whole is wrong.
    """
    here = opened(job.recipe, home)
    name = here.name(job.cell)
    tasks, work = here.tasks(job.cell), Cellwork(told=Telling(here.listed))
    here.guard.look(tasks)
    error: BaseException | None = None
    results: list[Result] = []
    try:
        with guard.alone(job.cell.seed), keeping(state_folder(home, name) if job.recipe.checkpoint else None):
            results = measure(job, here, tasks, name, work)
    except BaseException as raised:  # whatever a method does, the other cells are run
        if interrupted(raised):
            raise KeyboardInterrupt from raised
        error = raised
    if what := here.guard.changed(tasks):
        error = spoiled(job.cell, what, error)
        reopen(job.recipe, home)
    if error is not None:
        return without_result(job, here, name, work, error)
    files = {**code_file(here.code(job.cell), kept), **dict(files_of(job.recipe, results, name, tasks, work, kept))}
    return Made(name, results, files)


def state_folder(home: Path, name: str) -> Path:
    """Where the trainings of a cell keep their state, by the cell's name on disk."""
    return home / "checkpoints" / name


def make_some(jobs: Sequence[Job], home: Path, kept: Kept, seconds: float) -> list[Made]:
    """Do jobs in turn until some time has passed: what the first of them come to, of one at least.

    A cell may take milliseconds or an hour; whoever hands them out gets back what was not begun.
    """
    began, done = time.perf_counter(), list[Made]()
    for job in jobs:
        done.append(make(job, home, kept))
        if time.perf_counter() - began > seconds:
            break
    return done


def measure(job: Job, here: Opened, tasks: Sequence[Task], name: str, work: Cellwork) -> list[Result]:
    """Adapt, answer, compare; nothing is written."""
    recipe, cell = job.recipe, job.cell
    work.built = method(copy.deepcopy(cell.spec))
    about = {"method": cell.label, "shots": cell.shots, "protocol": copy.deepcopy(here.fixed), "tag": tag_in(name)}
    found = evaluate(
        work.built,
        tasks,
        here.steps,
        seed=cell.seed,
        trainer=copy.deepcopy(recipe.trainer),
        search=recipe.searching,
        bins=recipe.bins,
        keep=work.answers.__setitem__ if recipe.keeping == "logits" else None,
        note=None if recipe.keeping == "none" else work.told.note,
        where={**about, "oracle": recipe.select == "oracle"},
    )
    commit, gone = {"git": here.git} if here.git else {}, here.workspace.others.left_out
    commit |= {"code": code_name(here.code(cell)), **circumstances(here.workspace.device)}
    counts: list[list[int]] = []  # of all that was learned from by then
    for task in tasks:
        own, before = images_per_class(task.support, len(task.classnames)), counts[-1] if counts else []
        counts.append([n + m for n, m in zip_longest(own, before, fillvalue=0)])
    return [
        replace(result, versions={**result.versions, **commit}, images_per_class=count, images_left_out=gone)
        for result, count in zip(found, counts, strict=True)
    ]


def spoiled(cell: Cell, what: str, before: BaseException | None) -> BaseException:
    """The error of a cell that changed what cells share."""
    error = ValueError(f"{cell.label} must leave what cells share as it was; it changed {what}; write to a clone()")
    error.__cause__ = before
    return error


def without_result(job: Job, here: Opened, name: str, work: Cellwork, error: BaseException) -> Made:
    """Why a cell has no result, and what says so."""
    cell, cause = job.cell, cause_of(error, work.built, job.recipe.batch_size)
    about: dict[str, Any] = {"shots": cell.shots, "seed": cell.seed, "protocol": here.fixed, "tag": tag_in(name)}
    failure = Failure(method=cell.label, cause=cause, file=file_of(name), **about)
    files = failure.files(error)
    if out_of_memory(error):
        error.__traceback__ = None  # its frames hold what did not fit
        work.built, work.answers, work.told = None, {}, Telling()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return Made(name, failure, files)


def files_of(
    recipe: Recipe, results: Sequence[Result], name: str, tasks: Sequence[Task], work: Cellwork, kept: Kept
) -> Iterator[tuple[str, bytes]]:
    """The files of a cell that is done; the first record, which says so, is the last of them."""
    if recipe.keeping == "logits":
        yield f"{name}.safetensors", save({n or "own": a.contiguous() for n, a in work.answers.items()})
    yield from told_files(work.told, results, name, kept)
    for result, task in zip(results[::-1], tasks[::-1], strict=True):
        yield from support_file(task.support, result.support, kept)
        yield f"{name}{f'.step-{result.step}' * (result.step > 1)}.json", result.record()
