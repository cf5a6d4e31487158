"""What is asked of an adapted method, checked where it enters, and its answers, checked where they leave."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from adaptkit.features.given import Array
from adaptkit.features.items import Arrays, Images

if TYPE_CHECKING:
    from adaptkit.methods.method import Method


def asked_images(method: Method, asked: Images | Array | Mapping[str, Array]) -> Images:
    """Images as they are; arrays as images, read on the method's device, encoded by its backbone when they are pixels.

    Raises:
        ValueError: for arrays that are not of finite numbers, or of another width than the method adapted to.
    """
    if isinstance(asked, Images):
        if isinstance(asked.rows, Arrays) and method.joint_width:
            asked.rows.check_width(method.joint_width, "query")
        return asked
    images = Images.from_arrays(asked, role="query")
    rows: Arrays = images.rows  # type: ignore[assignment]
    rows.backbone = next((b for m in method.modules() if (b := getattr(m, "backbone", None))), None)
    if method.joint_width:
        rows.check_width(method.joint_width, "query")
    held = next(itertools.chain(method.parameters(), method.buffers()), None)
    return images if held is None else images.to(held.device)


def only_finite(method: Method, answers: Tensor) -> Tensor:
    """The answers, all of which are numbers.

    Raises:
        ValueError: when some are not, naming the method, the first such row and what it holds.
    """
    good = answers.isfinite()
    if not good.all():
        rows = (~good).flatten(1).any(1) if good.dim() > 1 else ~good
        row = int(rows.nonzero()[0])
        value = float(answers[row][~good[row]].flatten()[0])
        raise ValueError(
            f"{type(method).__name__} returned {int((~good).sum())} values not finite, in {int(rows.sum())} "
            f"of {len(good)} rows; got {value} in row {row}; its options or its task allow no answer"
        )
    return answers
