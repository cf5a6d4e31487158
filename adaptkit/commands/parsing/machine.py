"""The options that say where, with how much at once and how exactly the towers work: keys of a recipe, by short names.

A record's key has the precision. It has neither device, batch size nor workers: of a row only the last digits depend on
the first two, and nothing on the third.
"""

from __future__ import annotations

import argparse

from adaptkit.io.machine import MACHINE_KEYS

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}  # as others call them


def add_machine(command: argparse.ArgumentParser, *, precision: bool = True, ray: bool = False) -> None:
    """Add ``--device``, ``--batch-size``, ``--workers`` and ``--precision``.

    Args:
        command: that gets them.
        precision: whether that may be chosen.
        ray: whether workers may be Ray's.
    """
    command.add_argument("--device", metavar="cpu|cuda|cuda:0|mps|auto", help="where towers and methods compute")
    many = "images in one pass of a tower, or auto"
    command.add_argument("--batch-size", type=number_or_auto, metavar="N", help=many)
    who = "pictures decoded at once, or auto" + "; with --engine ray, the processes of Ray" * ray
    command.add_argument("--workers", type=number_or_auto, metavar="N", help=who)
    if precision:
        names = ("auto", *PRECISIONS, *PRECISIONS.values())
        exact = "of the towers' arithmetic: auto, fp32, bf16 or fp16; it stands in the keys of features and records"
        command.add_argument("--precision", choices=names, metavar="NAME", help=exact)


def machine_changes(options: argparse.Namespace) -> dict[str, int | str]:
    """What the options that were given set in a recipe; ``--workers`` of Ray sets nothing there."""
    given = {key: value for key in MACHINE_KEYS if (value := getattr(options, key, None)) is not None}
    if getattr(options, "engine", "") == "ray":
        given.pop("workers", None)
    if "precision" in given:
        given["precision"] = PRECISIONS.get(given["precision"], given["precision"])
    return given


def number_or_auto(text: str) -> int | str:
    """A whole number, or ``auto``.

    Raises:
        argparse.ArgumentTypeError: when it is neither.
    """
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number or auto; got {text!r}") from None
