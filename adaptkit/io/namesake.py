"""Somebody else's package of the same import name: on PyPI ``adaptkit`` is not ours, which is ``adaptkit-vlm``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

OUR_SUMMARY = "Summary: Few-shot and training-free adaptation of frozen vision-language backbones"
PLACES = ("adaptkit-*.dist-info/METADATA", "adaptkit-*.egg-info/PKG-INFO", "adaptkit.egg-info/PKG-INFO")


def namesake() -> str:
    """What is wrong where the other package is installed beside ours, in one line; "" where it is not.

    Only names of folders are read, as ``import adaptkit`` must not wait for the machinery of installed packages.
    """
    for notes in _notes():
        try:
            said = notes.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if OUR_SUMMARY not in said:  # ours was called so before it had a name of its own
            return (
                f"adaptkit must be the only package of its import name; got another, which PyPI calls 'adaptkit', in "
                f"{str(notes.parent)!r}; pip uninstall adaptkit, then pip install --force-reinstall --no-deps "
                "adaptkit-vlm (or -e . in a checkout)"
            )
    return ""


def _notes() -> Iterator[Path]:
    """What installed packages called ``adaptkit`` say of themselves."""
    for place in dict.fromkeys(sys.path):
        for kind in PLACES:
            try:
                yield from Path(place or ".").glob(kind)
            except OSError:
                continue
