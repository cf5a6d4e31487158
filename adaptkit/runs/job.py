"""The unit of work, one cell of a recipe; and a run, which does those that are not done, in turn."""

from __future__ import annotations

import copy
import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from adaptkit.io.files import atomic_write
from adaptkit.io.safe import in_lines, line
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from adaptkit.runs import guard, plugins
from adaptkit.runs.build import method
from adaptkit.runs.evaluate import evaluate
from adaptkit.runs.failures import (
    Failure,
    cause_of,
    file_of,
    forget_failure,
    interrupted,
    out_of_memory,
)
from adaptkit.runs.folders import described
from adaptkit.runs.kept import Finished, collect, damaged, done, keep_described, read_cell
from adaptkit.runs.opened import Opened, close, keep_open, opened, reopen
from adaptkit.runs.protocol import Cell, cells, tag_in
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.results import Result
from adaptkit.runs.supports import images_per_class, keep_support
from adaptkit.runs.wanted import fill


@dataclass(frozen=True)
class Job:
    """One cell of a recipe: a value, which any process that has the dataset and the plugins can do."""

    recipe: Recipe
    cell: Cell


@dataclass
class Cellwork:
    """What is known of a cell while it is worked on."""

    built: Method | None = None
    answers: dict[str, Tensor] = field(default_factory=dict)


def do(job: Job, home: Path, out: Path) -> list[Result] | Failure:
    """Do one cell, unless its record is there and sound: doing it again is harmless, and so is being killed.

    What cells share, the dataset and the towers, is opened once in a process; a cell that changed it has failed, and
    the next one finds it opened anew.

    Args:
        job: what to do.
        home: where features are kept.
        out: folder for the records.

    Returns:
        A result for each step of a sequence of tasks, one elsewhere; or why there is none.

    Raises:
        ValueError: when the recipe as a whole is wrong.
    """
    here = opened(job.recipe, home)
    name = here.name(job.cell)
    if found := done(out, name):
        return found
    tasks, work = here.tasks(job.cell), Cellwork()
    here.guard.look(tasks)
    error: BaseException | None = None
    results: list[Result] = []
    try:
        with guard.alone(job.cell.seed):
            results = measure(job, here, tasks, name, work)
    except BaseException as raised:  # whatever a method does, the other cells are run
        if interrupted(raised):
            raise KeyboardInterrupt from raised
        error = raised
    if what := here.guard.changed(tasks):
        error = spoiled(job.cell, what, error)
        reopen(job.recipe, home)
    if error is not None:
        return fail(job, here, name, work, error, out)
    write(job.recipe, results, name, tasks, work, out)
    return read_cell(out, name) or results  # as whoever asks later will read them


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
        keep=work.answers.__setitem__ if recipe.keep_answers else None,
        where={**about, "oracle": recipe.select == "oracle"},
    )
    commit, gone = {"git": here.git} if here.git else {}, here.workspace.others.left_out
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


def fail(job: Job, here: Opened, name: str, work: Cellwork, error: BaseException, out: Path) -> Failure:
    """Write down why a cell has no result."""
    cell, cause = job.cell, cause_of(error, work.built, job.recipe.batch_size)
    about: dict[str, Any] = {"shots": cell.shots, "seed": cell.seed, "protocol": here.fixed, "tag": tag_in(name)}
    failure = Failure(method=cell.label, cause=cause, file=file_of(name), **about)
    failure.save(out, error)
    if out_of_memory(error):
        error.__traceback__ = None  # its frames hold what did not fit
        work.built, work.answers = None, {}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return failure


def write(
    recipe: Recipe, results: Sequence[Result], name: str, tasks: Sequence[Task], work: Cellwork, out: Path
) -> None:
    """Write the records of a cell; the first, which says that the cell is done, last."""
    if recipe.keep_answers:
        kept = {n or "own": a.contiguous() for n, a in work.answers.items()}
        atomic_write(out / f"{name}.safetensors", save(kept))
    for result, task in zip(results[::-1], tasks[::-1], strict=True):
        keep_support(task.support, result.support, out)
        result.save(out / f"{name}{f'.step-{result.step}' * (result.step > 1)}.json")
    forget_failure(out, name)


def run(
    recipe: Recipe,
    *,
    home: Path,
    out: Path,
    say: Callable[[str], None] = print,
    progress: bool = True,
    shard: tuple[int, int] = (1, 1),
    recompute: bool = False,
) -> Finished:
    """Run what is not done yet and return every cell's result.

    Args:
        recipe: checked.
        home: where features are kept.
        out: folder for one JSON record per cell, and ``recipe.json``, which says what they are records of.
        say: told, in lines, what happens.
        progress: show bars.
        shard: ``(i, n)``, from 1: do every n-th cell; who finds the recipe finished returns all, others their own.
        recompute: run cells again whose record was damaged.

    Raises:
        ValueError: when the recipe as a whole is wrong, or a record was damaged.
    """
    home, out = home.absolute(), out.absolute()  # wherever a method goes
    keep_open(recipe, home, here := Opened(recipe, home, progress))
    try:
        names = [here.name(cell) for cell in cells(recipe)]
        todo = left(recipe, here, names, shard, out, say, recompute)
        keep_described(described(recipe), out, bool(todo))
        say(fill(recipe, here.workspace, todo, here.tests))
        do_all(recipe, todo, home, out, say, progress)
    finally:
        close(recipe, home)
    found = collect(out, names)
    if not found.missing:
        return found
    own = collect(out, names[shard[0] - 1 :: shard[1]])
    return Finished(own, own.failures, found.missing)


def left(
    recipe: Recipe,
    here: Opened,
    names: Sequence[str],
    shard: tuple[int, int],
    out: Path,
    say: Callable[[str], None],
    recompute: bool,
) -> list[Cell]:
    """The cells of a shard that are not done, told in lines, with what is damaged and which plugins are."""
    mine = slice(shard[0] - 1, None, shard[1])
    again = damaged(out, names[mine], recompute)
    own = list(zip(cells(recipe), names, strict=True))[mine]
    todo = [cell for cell, name in own if done(out, name) is None]
    what = recipe.name + f", shard {shard[0]}/{shard[1]}" * (shard[1] > 1)
    count = len(own) - len(todo)
    say(f"{what}: {len(own)} cells, {count} done already, {len(todo)} to run on {here.workspace.device}")
    notes = *recipe.said(), *here.workspace.others.lines()
    for told in (*notes, *(f"recomputed: {why}" for why in again), *plugins.complaints()):
        say(in_lines(told))
    return todo


def do_all(
    recipe: Recipe, todo: Sequence[Cell], home: Path, out: Path, say: Callable[[str], None], progress: bool
) -> None:
    """Do cells in turn, announce each result, and show how far it is."""
    warned: set[str] = set()
    for number, cell in enumerate(todo, 1):
        outcome = do(Job(recipe, cell), home, out)
        for result in outcome if isinstance(outcome, list) else ():
            for name, why in plugins.announce(result).items():
                if name not in warned:
                    say(f"warning: report of plugin {name!r} failed: {why}")
                    warned.add(name)
        if progress:
            accuracy = None if isinstance(outcome, Failure) else outcome[0].metrics.get("accuracy")
            failed = "failed" if isinstance(outcome, Failure) else ""
            shown = failed if accuracy is None else f"{100 * accuracy:.1f} %"
            print(
                f"\r{number}/{len(todo)} {line(cell.label)} {cell.shots}-shot, seed {cell.seed}: {shown}\033[K",
                end="",
                file=sys.stderr,
            )
    if progress and todo:
        print(file=sys.stderr)
