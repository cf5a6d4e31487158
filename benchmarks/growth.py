"""``python -m benchmarks.growth [NAME...] [--axes N,C,S,D]``: how time and memory of methods grow, as a table.

Exponents of fit and predict against queries N (and validation images, as many), classes C, support images S in all, and
width D: least squares of the logarithms over the upper decade of two. Time is the processor's, on one thread, the least
of two; memory the most bytes of tensors that are there at once, counted, not measured. Each cell is ``time / memory``.
"""

import argparse
import logging
import math
import time
import warnings
from collections.abc import Sequence

import torch

from adaptkit import adapt, predict
from benchmarks.frame import timed
from benchmarks.ladder import Sizes, counted, made, on_features, task_of

LADDERS = {
    "N": [Sizes(N=n, val=n) for n in (100, 316, 1000, 3162, 10000)],
    "C": [Sizes(C=c, S=1000) for c in (10, 32, 100, 316, 1000)],
    "S": [Sizes(S=s) for s in (12, 60, 240, 600, 2400)],
    "D": [Sizes(D=d) for d in (16, 50, 160, 500, 1600)],
}
MOST = 4.0  # seconds for a size; where one takes longer, larger ones are left out
Points = list[tuple[float, float]]


def exponent(points: Points) -> float:
    """Of the power of the first numbers that the second grow with, by least squares of the logarithms."""
    x, y = ([math.log(max(p[i], 1e-9)) for p in points] for i in (0, 1))
    mean = sum(x) / len(x)
    return sum((a - mean) * b for a, b in zip(x, y, strict=True)) / sum((a - mean) ** 2 for a in x)


def grown(name: str, axis: str, most: float) -> list[str]:
    """The cells of fit and predict of one method along one axis."""
    found: dict[str, Points] = {"fit s": [], "fit bytes": [], "predict s": [], "predict bytes": []}
    for sizes in LADDERS[axis]:
        began, at = time.process_time(), getattr(sizes, axis)
        task, queries = task_of(made(name), sizes)
        seconds, built = timed(lambda task=task: adapt(made(name), task), 2)
        found["fit s"].append((at, seconds))
        found["predict s"].append((at, timed(lambda built=built, queries=queries: predict(built, queries), 2)[0]))
        counts, _ = counted(lambda task=task: adapt(made(name), task))
        found["fit bytes"].append((at, counts.peak))
        counts, _ = counted(lambda built=built, queries=queries: predict(built, queries))
        found["predict bytes"].append((at, counts.peak))
        if time.process_time() - began > most and len(found["fit s"]) > 1:
            break
    last = {what: exponent(points[-3:]) for what, points in found.items()}
    return [f"{last[f'{verb} s']:.1f} / {last[f'{verb} bytes']:.1f}" for verb in ("fit", "predict")]


def table(names: Sequence[str], axes: Sequence[str], most: float = MOST) -> None:
    """Print the table, a line for each method as soon as it is done."""
    columns = [f"{verb} {axis}" for verb in ("fit", "predict") for axis in axes]
    print("| method |", " | ".join(columns), "|")
    print("|---|" + "---|" * len(columns))
    for name in names:
        cells = [grown(name, axis, most) for axis in axes]
        print(f"| `{name}` |", " | ".join(c[i] for i in (0, 1) for c in cells), "|", flush=True)


def main() -> None:
    """The table, and which methods have towers in the loop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--axes", default=",".join(LADDERS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if unknown := sorted({*asked.axes.split(",")} - {*LADDERS}):
        parser.error(f"axes must be among {', '.join(LADDERS)}; got {', '.join(unknown)}")
    reasons = on_features()
    if unknown := [name for name in asked.names if reasons.get(name, "it is none") != ""]:
        known = ", ".join(name for name, reason in reasons.items() if not reason)
        parser.error(f"names must be among those of methods that run on features, {known}; got {', '.join(unknown)}")
    table(asked.names or [name for name, reason in reasons.items() if not reason], asked.axes.split(","))
    if not asked.names:
        print("\nWith towers in the loop:", ", ".join(f"`{name}`" for name, reason in reasons.items() if reason))


if __name__ == "__main__":
    main()
