"""The preprocessing that a checkpoint's image processor describes, or one line about the key that we cannot follow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptkit.towers.preprocess import Preprocess

LARGEST = 10_000  # side of a square, pixels: what is more is a mistake
NEEDED_STEPS = ("do_resize", "do_rescale", "do_normalize")
REFUSED_STEPS = ("do_flip_channel_order", "do_pad", "do_thumbnail", "do_align_long_axis")  # steps that change pixels
RESAMPLE = {2: "bilinear", 3: "bicubic"}


def read_preprocess(spec: Mapping[str, Any], file: Path) -> Preprocess:
    """The checkpoint's own.

    Args:
        spec: what the file says, or has under ``image_processor``.
        file: to name in errors.

    Raises:
        ValueError: naming the first key that asks for something else.
    """
    inner = spec.get("image_processor", spec)
    if not isinstance(inner, Mapping):
        raise ValueError(f"'image_processor' in {str(file)!r} must be a mapping; got {inner!r}")
    spec = {key: value for key, value in inner.items() if value is not None}
    edge, side = _edge_and_side(spec)
    crops = spec.get("do_center_crop", False)
    resizes = bool(edge if crops else side)
    rules = {
        **{key: (spec.get(key, True) is True, "true") for key in NEEDED_STEPS},
        **{key: (spec.get(key, False) is False, "false, or left out") for key in REFUSED_STEPS},
        "do_center_crop": (crops in (True, False), "true or false"),
        "size": (resizes, "a shortest_edge with do_center_crop, an equal height and width without"),
        "crop_size": (bool(side), "an equal height and width"),
        "rescale_factor": (is_near(spec.get("rescale_factor", 1 / 255), 1 / 255), "1/255"),
        "resample": (is_number(spec.get("resample")) and spec["resample"] in RESAMPLE, "2 (bilinear) or 3 (bicubic)"),
        "image_mean": (are_three(spec.get("image_mean")), "three numbers"),
        "image_std": (are_three(spec.get("image_std"), positive=True), "three numbers above 0"),
    }
    ensure_followed(rules, spec, f"in {str(file)!r}")
    norm = {"mean": tuple(spec["image_mean"]), "std": tuple(spec["image_std"])}
    fit, resample = "crop" if crops else "squash", RESAMPLE[spec["resample"]]
    return Preprocess(size=side, edge=edge, fit=fit, resample=resample, **norm)  # type: ignore[arg-type]


def ensure_followed(rules: Mapping[str, tuple[bool, str]], spec: Mapping[str, Any], where: str) -> None:
    """Refuse preprocessing that asks for something else than we do.

    Args:
        rules: whether what is said under a key is good, and what must be there.
        spec: what is said.
        where: it is said, to go on with after the key.

    Raises:
        ValueError: naming the first key that is not good.
    """
    for key, (good, allowed) in rules.items():
        if not good:
            raise ValueError(f"{key!r} {where} must be {allowed}; got {spec.get(key)!r}")


def _edge_and_side(spec: Mapping[str, Any]) -> tuple[int, int]:
    """Length of the shortest side before a crop, and the side of the square; 0 for what is not to be read.

    A size that is one number is the shortest side's before a crop, or else a square's.
    """
    crops, size = spec.get("do_center_crop", False), spec.get("size")
    size = size if isinstance(size, Mapping) else {"shortest_edge": size} if crops else {"height": size, "width": size}
    box = spec.get("crop_size") if crops else size
    side = box.get("height") if isinstance(box, Mapping) else box
    square = is_side(side) and box in (side, {"height": side, "width": side})
    edge = size["shortest_edge"] if [*size] == ["shortest_edge"] else 0
    return int(edge) if crops and is_side(edge) else 0, int(side) if square else 0  # type: ignore[arg-type]


def is_number(value: object) -> bool:
    """Whether this is a finite number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def is_near(value: object, want: float) -> bool:
    """Whether this is a number, up to rounding."""
    return is_number(value) and abs(value - want) < 1e-9  # type: ignore[operator]


def is_side(value: object) -> bool:
    """Whether this can be a side in pixels."""
    return is_number(value) and value in range(1, LARGEST + 1)


def are_three(value: object, positive: bool = False) -> bool:
    """Whether these are three finite numbers, one for each channel."""
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(is_number, value)):
        return False
    return not positive or min(value) > 0
