"""What a method remembers of tasks that came one after another: accuracies after each step, forgetting, transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from adaptkit.io.text import columns
from adaptkit.runs.results import Result

Matrix = Sequence[Sequence[float | None]]  # accuracies: a row for each step, a column for each task


def accuracies(results: Sequence[Result]) -> list[list[float | None]]:
    """The matrix of accuracies of one method, seeds averaged: a row after each task, a column for each one's images.

    Each is a share between 0 and 1, among the classes of all tasks seen so far; on the task after those, among its
    classes as well. ``None`` where nothing was asked, which is so of tasks that lie further ahead.
    """
    count = max((r.step for r in results), default=0)

    def cell(step: int, task: int) -> float | None:
        name = f"task-{task}/accuracy"
        found = [r.metrics[name] for r in results if r.step == step and name in r.metrics]
        return mean(found) if found else None

    return [[cell(step, task) for task in range(1, count + 1)] for step in range(1, count + 1)]


def forgetting(matrix: Matrix) -> float | None:
    """How much was lost of what was known best, the mean over all tasks but the last; below 0 where more was won.

    ``mean over j < T of max over l < T of (a[l, j] - a[T, j])``, l from j on. Source: Chaudhry et al., Riemannian Walk
    for Incremental Learning, ECCV 2018, arXiv:1801.10112, section 3.
    """
    last = len(matrix) - 1
    lost = [max(known(matrix[step][j]) for step in range(j, last)) - known(matrix[last][j]) for j in range(last)]
    return mean(lost) if lost else None


def backward_transfer(matrix: Matrix) -> float | None:
    """How much learning later tasks changed the accuracy on each, the mean over all tasks but the last.

    ``mean over i < T of R[T, i] - R[i, i]``. Source: Lopez-Paz and Ranzato, Gradient Episodic Memory for Continual
    Learning, NeurIPS 2017, arXiv:1706.08840, section 2.
    """
    last = len(matrix) - 1
    change = [known(matrix[last][j]) - known(matrix[j][j]) for j in range(last)]
    return mean(change) if change else None


def forward_transfer(matrix: Matrix, chance: Mapping[int, float]) -> float | None:
    """How much better than chance each task is answered just before it is learned, the mean over all but the first.

    ``mean over i > 1 of R[i - 1, i] - b[i]``. Source: as `backward_transfer`, where b is the accuracy at a random
    start; here it is chance. ``None`` for methods that cannot answer for classes they did not learn.

    Args:
        matrix: of accuracies.
        chance: by task, from 1, one over the number of classes to choose among.
    """
    ahead = [(j + 1, matrix[j - 1][j]) for j in range(1, len(matrix))]
    found = [value - chance[task] for task, value in ahead if value is not None]
    return mean(found) if found and len(found) == len(ahead) else None


def known(value: float | None) -> float:
    """An accuracy that the records of a whole sequence have.

    Raises:
        ValueError: where they have not.
    """
    if value is None:
        raise ValueError("results of a sequence must be those of all its steps; got some of them")
    return value


def chances(results: Sequence[Result]) -> dict[int, float]:
    """By task, from 1, one over the number of classes that are known once it is learned."""
    return {r.step: 1 / len(r.classes[""]) for r in results if r.step and r.classes.get("")}


def whole_accuracies(results: Sequence[Result]) -> list[float]:
    """Of one method after each task, the accuracy on all images of the tasks seen so far, seeds averaged.

    Raises:
        ValueError: where some steps are missing.
    """
    steps = range(1, max(r.step for r in results) + 1)
    found = [[r.metrics["accuracy"] for r in results if r.step == k] for k in steps]
    return [known(mean(own) if own else None) for own in found]


def summed_up(results: Sequence[Result]) -> dict[str, float | None]:
    """What the matrix of one method's accuracies comes to, by name."""
    matrix = accuracies(results)
    return {
        "average accuracy": mean(whole_accuracies(results)),
        "forgetting": forgetting(matrix),
        "backward transfer": backward_transfer(matrix),
        "forward transfer": forward_transfer(matrix, chances(results)),
    }


def as_lines(results: Sequence[Result]) -> str:
    """The matrix of one method's accuracies and what it comes to, in percent, for a terminal."""
    matrix, whole = accuracies(results), whole_accuracies(results)
    head = ["after", *(f"task {j}" for j in range(1, len(matrix) + 1)), "all so far"]
    rows = [
        [f"task {k}", *map(share, row), share(all_)] for k, (row, all_) in enumerate(zip(matrix, whole, strict=True), 1)
    ]
    summary = "; ".join(f"{name} {share(value)}" for name, value in summed_up(results).items())
    return f"{columns([head, *rows])}\n{summary}"


def share(value: float | None) -> str:
    """A share as a percentage, "-" where there is none."""
    return "-" if value is None else f"{100 * value:.1f}"
