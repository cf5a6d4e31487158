"""What is asked of an adapted method, checked where it enters, and its answers, checked where they leave."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adaptkit.features.given import Array
from adaptkit.features.items import Arrays, Images

if TYPE_CHECKING:
    from adaptkit.methods.method import Method


def asked_images(method: Method, asked: Images | Array | Mapping[str, Array], *, looked: bool = True) -> Images:
    """Images as they are; arrays as images, read on the method's device, encoded by its backbone when they are pixels.

    Where they are not `looked` at now, whoever reads them does so; see `Arrays.block`.

    Raises:
        ValueError: for arrays that are not of finite numbers, or of another width than the method adapted to.
    """
    if isinstance(asked, Images):
        if isinstance(asked.rows, Arrays) and method.joint_width:
            asked.rows.check_width(method.joint_width, "query")
        return asked
    rows = Images.from_arrays(asked, role="query").rows if looked else Arrays.of(asked, "query")
    if not isinstance(rows, Arrays):
        raise TypeError(f"rows of arrays must be Arrays; got {type(rows).__name__}")
    images = Images(rows, torch.arange(rows.count))
    rows.backbone = next((b for m in method.modules() if (b := getattr(m, "backbone", None))), None)
    if method.joint_width:
        rows.check_width(method.joint_width, "query")
    held = next(itertools.chain(method.parameters(), method.buffers()), None)
    return images if held is None else images.to(held.device)


def check_asked(method: object, task: object, trainer: object) -> None:
    """What is asked to be adapted, to what and how.

    Raises:
        ValueError: when one is of another type, with how to make it.
    """
    from adaptkit.methods.method import Method
    from adaptkit.methods.task import Task

    if not isinstance(method, Method):
        raise ValueError(f"a method to adapt must be one, as ak.method('gda') makes it; got {method!r:.80}")
    if not isinstance(task, Task):
        raise ValueError(f"a task must be one, as ak.load or ak.Task.from_arrays makes it; got {type(task).__name__}")
    if not isinstance(trainer, Mapping | None):
        raise ValueError(f"trainer must be a mapping of options for the Trainer; got {trainer!r:.80}")


@contextmanager
def solvable(method: Method) -> Iterator[None]:
    """Say of equations without a solution whose they are, and what they come from.

    Raises:
        ValueError: in place of the error of who was to solve them.
    """
    try:
        yield
    except torch.linalg.LinAlgError as error:
        name = type(method).__name__
        raise ValueError(f"{name} must have images and texts that differ; got equations without a solution") from error


def only_finite(method: Method, answers: Tensor, before: int = 0) -> Tensor:
    """The answers, all of which are numbers; `before` them came those of other rows.

    Raises:
        ValueError: when some are not, naming the method, the first such row and what it holds.
    """
    if all(bool(part.isfinite().all()) for part in answers.split(SEEN)):
        return answers
    good = answers.isfinite()
    rows = (~good).flatten(1).any(1) if good.dim() > 1 else ~good
    row = int(rows.nonzero()[0])
    value = float(answers[row][~good[row]].flatten()[0])
    raise ValueError(
        f"{type(method).__name__} returned {int((~good).sum())} values not finite, in {int(rows.sum())} "
        f"of {len(good)} rows; got {value} in row {before + row}; its options or its task allow no answer"
    )


SEEN = 2**11  # rows that are looked at together
