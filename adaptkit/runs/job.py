"""A run does the cells of a recipe that are not done, and keeps their records: in turn, or as an engine does them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from adaptkit.io.files import atomic_write
from adaptkit.io.safe import in_lines, line
from adaptkit.io.shots import plain_shots
from adaptkit.methods.checkpoints import forget_trainings
from adaptkit.runs import plugins
from adaptkit.runs.engine import Engine, WorkerDiedError, check_same
from adaptkit.runs.evaluation_sets import EvaluationSet
from adaptkit.runs.failures import Failure, forget_failure
from adaptkit.runs.folders import described
from adaptkit.runs.kept import Finished, collect, damaged, done, keep_described, read_cell
from adaptkit.runs.opened import Opened, close, keep_open, opened
from adaptkit.runs.protocol import Cell, cells
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.reporters import reporting
from adaptkit.runs.results import Result
from adaptkit.runs.spreading import fill_by, read_sentences
from adaptkit.runs.wanted import fill
from adaptkit.runs.work import Cellwork, Job, Made, make, make_some, state_folder, without_result
from adaptkit.runs.workspace import Workspace


def do(job: Job, home: Path, out: Path) -> list[Result] | Failure:
    """Do one cell, unless its record is there and sound: doing it again is harmless, and so is being killed.

    Args:
        job: what to do.
        home: where features are kept.
        out: folder for the records.

    Returns:
        A result for each step of a sequence of tasks, one elsewhere; or why there is none.

    Raises:
        ValueError: when the recipe as a whole is wrong.
    """
    found = done(out, opened(job.recipe, home).name(job.cell))
    return found or and_forgotten(keep_made(made := make(job, home, kept_in(out)), out), made, home)


def kept_in(out: Path) -> Callable[[str], bool]:
    """Which files a folder of records has, by their paths from it."""
    return lambda path: (out / path).exists()


def keep_made(made: Made, out: Path) -> list[Result] | Failure:
    """Write what a cell came to; its results as whoever asks later will read them."""
    for path, data in made.files.items():
        atomic_write(out / path, data)
    if isinstance(made.outcome, Failure):
        return made.outcome
    forget_failure(out, made.name)
    return read_cell(out, made.name) or made.outcome


def and_forgotten(outcome: list[Result] | Failure, made: Made, home: Path) -> list[Result] | Failure:
    """What was kept of a cell; once there are results, what its trainings kept meanwhile is removed."""
    if isinstance(outcome, list):
        forget_trainings(state_folder(home, made.name))
    return outcome


def run_recipe(
    recipe: Recipe,
    *,
    home: Path,
    out: Path,
    say: Callable[[str], None] = print,
    progress: bool = True,
    shard: tuple[int, int] = (1, 1),
    recompute: bool = False,
    engine: Engine | None = None,
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
        engine: what does the cells; none does them here, in turn.

    Raises:
        ValueError: when the recipe as a whole is wrong, or a record was damaged.
    """
    home, out = home.absolute(), out.absolute()  # wherever a method goes
    keep_open(recipe, home, here := Opened(recipe, home, progress))
    try:
        names = [here.name(cell) for cell in cells(recipe)]
        todo = left(recipe, here, names, shard, out, say, recompute)
        keep_described(described(recipe), out, bool(todo))
        say(filled(engine, recipe, here.workspace, todo, here.tests, progress))
        with reporting(recipe.report, out, recipe.name):
            tell_all(outcomes(engine, recipe, here, todo, home, out), len(todo), say, progress)
    finally:
        close(recipe, home)
    found = collect(out, names)
    own = collect(out, names[shard[0] - 1 :: shard[1]]) if found.missing else found
    return Finished(own, own.failures, found.missing)


def extract_all(
    recipe: Recipe,
    *,
    home: Path,
    progress: bool = True,
    shard: tuple[int, int] = (1, 1),
    engine: Engine | None = None,
) -> str:
    """Compute and store what the cells of a recipe will read, done or not, and say in a line what that was.

    Args:
        recipe: checked.
        home: where features are kept.
        progress: show bars.
        shard: ``(i, n)``, from 1: compute the i-th of n parts of each source's images.
        engine: what computes; none computes here.

    Raises:
        ValueError: when nothing can be computed from some images.
    """
    workspace = Workspace(recipe.setting(), home=home.absolute(), progress=progress)
    tests, todo = workspace.evaluation_sets(), cells(recipe)
    if engine is None:
        read_sentences(workspace, tests)
    return filled(engine, recipe, workspace, todo, tests, progress, shard)


def filled(
    engine: Engine | None,
    recipe: Recipe,
    workspace: Workspace,
    todo: list[Cell],
    tests: Sequence[EvaluationSet],
    progress: bool,
    shard: tuple[int, int] = (1, 1),
) -> str:
    """Compute what some cells will read, here or by an engine, and say in a line what that was."""
    if engine is None:
        return fill(recipe, workspace, todo, tests, shard)
    return fill_by(engine, recipe, workspace, todo, tests, show_shards if progress else ignore)


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


def show_shards(number: int, count: int) -> None:
    """Show how far the extraction is."""
    print(f"\r{number:,}/{count:,} shards of features\033[K", end="\n" * (number == count), file=sys.stderr, flush=True)


def ignore(number: int, count: int) -> None:
    """Show nothing."""


def outcomes(
    engine: Engine | None, recipe: Recipe, here: Opened, todo: Sequence[Cell], home: Path, out: Path
) -> Iterator[tuple[Cell, list[Result] | Failure]]:
    """What each cell comes to: in this process, in turn; or by an engine, whose workers write no records."""
    jobs = [Job(recipe, cell) for cell in todo]
    if engine is None:
        yield from ((job.cell, do(job, home, out)) for job in jobs)
        return
    for number, made in engine.each(make_some, jobs, home):
        job, name = jobs[number], here.name(todo[number])
        if isinstance(made, WorkerDiedError):
            made = without_result(job, here, name, Cellwork(), made)
        check_same(made.name, name, f"cell {job.cell.label}")
        yield job.cell, and_forgotten(keep_made(made, out), made, home)


def tell_all(
    found: Iterator[tuple[Cell, list[Result] | Failure]], count: int, say: Callable[[str], None], progress: bool
) -> None:
    """Announce each result when it is there, and show how far it is."""
    warned: set[str] = set()
    for number, (cell, outcome) in enumerate(found, 1):
        for result in outcome if isinstance(outcome, list) else ():
            for name, why in plugins.announce(result).items():
                if name not in warned:
                    say(f"warning: report of plugin {name!r} failed: {why}")
                    warned.add(name)
        if progress:
            accuracy = None if isinstance(outcome, Failure) else outcome[0].metrics.get("accuracy")
            failed = "failed" if isinstance(outcome, Failure) else ""
            shown = failed if accuracy is None else f"{100 * accuracy:.1f} %"
            what = f"{line(cell.label)} {plain_shots(cell.shots)}-shot, seed {cell.seed}"
            print(f"\r{number}/{count} {what}: {shown}\033[K", end="", file=sys.stderr)
    if progress and count:
        print(file=sys.stderr)
