"""Arrays as people have them, checked once where they enter: what is wrong is named by array, shape, row and value."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = Tensor | np.ndarray | Sequence[Any]
NO_NUMBERS = {"O": "objects", "U": "text", "S": "text", "T": "text", "c": "complex numbers", "M": "dates"}
"""Arrays of numpy that hold no real numbers, by the letter of their kind."""


def features(array: Array, what: str = "features") -> Tensor:
    """An array of real numbers as a float32 tensor, on its device and without a gradient; whole numbers become floats.

    Raises:
        ValueError: for what is no array of finite real numbers, naming `what`, the shape, the row and the value.
    """
    given = as_tensor(array, what)
    hold_finite(given, what)
    return given.float()


def hold_finite(given: Tensor, what: str, before: int | None = None) -> None:
    """Rows are of finite numbers that single precision can square twice; seen part by part: no copy is held.

    Args:
        given: as it came.
        what: it is called in errors.
        before: how many rows came before it, where it is a part of something longer.

    Raises:
        ValueError: naming `what`, the row and the value.
    """
    of = "" if before is not None else f" of {len(given)}" if given.dim() else ""
    step = max(1, PART // max(1, given[:1].numel())) if given.dim() else 1
    for start in range(0, len(given) if given.dim() else 0, step):
        part, first = given[start : start + step].float(), start + (before or 0)
        many = part.dim() > 1 and part.numel() > 0
        size = part.abs().flatten(1).amax(1) if many else part.abs()  # of a row that is not finite it is not, either
        if not size.isfinite().all():
            row = int((~size.isfinite()).nonzero()[0])
            values = given[start + row].reshape(-1)
            value = float(values[(~part[row].reshape(-1).isfinite()).nonzero()[0]])
            raise ValueError(f"{what} must be finite; got {value} in row {first + row}{of}")
        if many and len(wrong := ((size > LARGE) | ((size < 1 / LARGE) & (size > 0))).nonzero()):
            row, got = first + int(wrong[0]), float(size[wrong[0]])
            allowed = f"zeros, or have a largest number from {1 / LARGE:g} to {LARGE:g}"
            raise ValueError(f"{what} must be {allowed}; got {got:g} in row {row}{of}; scale them")


PART = 2**22  # numbers that are looked at together
LARGE = 1e9  # what is larger, or smaller than its inverse, cannot be squared twice in single precision


def whole_numbers(array: Array, what: str = "labels") -> Tensor:
    """An array of whole numbers as an int64 tensor; floats may be whole numbers, too.

    Raises:
        ValueError: for any other, naming `what`, the row and the value.
    """
    given = as_tensor(array, f"{what}, each the place of its class among all,")
    if given.is_floating_point() and not (good := given == given.round()).logical_and_(given.abs() < 2**31).all():
        at = (~good).nonzero()[0]
        where = f" in row {int(at[0])}" if len(at) else ""
        raise ValueError(f"{what} must be whole numbers, one for each class; got {float(given[tuple(at)])}{where}")
    return given.long()


def as_tensor(array: Array, what: str) -> Tensor:
    """An array of real numbers as a tensor that shares its memory where it can; nothing may be written to it.

    Raises:
        ValueError: for text, objects, complex numbers, ragged lists, and tensors that are not dense.
    """
    if isinstance(array, Tensor):
        if array.layout != torch.strided or array.is_quantized or array.is_meta:
            raise ValueError(f"{what} must be a dense tensor; got one that is not, of shape {tuple(array.shape)}")
        if array.is_complex():
            raise ValueError(f"{what} must be real numbers; got {array.dtype} of shape {tuple(array.shape)}")
        return array.detach()
    rows = to_numpy(array, what)
    if rows.dtype.kind not in "fiub":
        example = "" if rows.dtype.kind == "c" or not rows.size else f", e.g. {rows.reshape(-1)[0]!s:.40}"
        kind = NO_NUMBERS.get(rows.dtype.kind, str(rows.dtype))
        raise ValueError(f"{what} must be real numbers; got {kind} of shape {rows.shape}{example}")
    wide = {"f": np.float64, "u": np.int64}.get(rows.dtype.kind)
    if rows.dtype.itemsize > 8 or (rows.dtype.kind == "u" and rows.dtype.itemsize > 1):
        rows = rows.astype(wide)  # what torch does not know
    rows = rows.astype(rows.dtype.newbyteorder("="), copy=False)
    if any(stride < 0 for stride in rows.strides):
        rows = np.ascontiguousarray(rows)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")  # a file mapped for reading: it is only read
        return torch.from_numpy(rows)


def to_numpy(array: Any, what: str) -> np.ndarray:  # noqa: ANN401 (whatever numpy can read)
    """Lists and whatever else numpy reads as an array.

    Raises:
        ValueError: for rows of different lengths, and for entries that are masked.
    """
    if isinstance(array, list | tuple) and any(isinstance(row, Tensor) for row in array):
        array = [row.detach().cpu().numpy() if isinstance(row, Tensor) else row for row in array]
    try:
        rows = np.asarray(array)
    except ValueError:
        lengths = [len(row) if hasattr(row, "__len__") else 1 for row in array]
        row = next((i for i, n in enumerate(lengths) if n != lengths[0]), 0)
        told = f"{lengths[0]} in row 0 and {lengths[row]} in row {row}" if row else "some that differ further in"
        raise ValueError(f"{what} must be rows of one length; got lengths {told}") from None
    except Exception as error:  # whatever a stranger's object raises when it is read
        raise ValueError(f"{what} must be an array of numbers; got {type(array).__name__}, {error}") from error
    if np.ma.is_masked(array):
        raise ValueError(f"{what} must have no masked entries; got {int(np.ma.count_masked(array))} in {rows.shape}")
    return rows
