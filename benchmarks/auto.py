"""`adaptkit auto` against every method of its portfolio, and how often its interval holds the truth.

A draw takes K images of each class, of all parts of a dataset, as somebody's folder; all others are unseen, so that
they come as those in the folder do. `auto` sees the folder alone. Each method of the portfolio then learns from the
same images, as it does there, and everything is measured on the unseen ones. Minutes are of the processor's time, so
that other work on the machine does not matter. Draws are appended to a file, so that a trial goes on where it stopped.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

from adaptkit.automatic.auto import auto
from adaptkit.automatic.budget import Budget
from adaptkit.automatic.learning import in_memory, learn
from adaptkit.automatic.portfolio import VIEWS, portfolio
from adaptkit.features.datasets import Joined, Splits, some_of
from adaptkit.features.samplers import draw
from adaptkit.methods.predicting import accuracy
from adaptkit.runs.loading import pick_dataset
from adaptkit.testing.toy import CLASSES, ToyImages

BACKBONE = "packaged:lite0-minilm"
FOLDER_IMAGES, FOLDER_NOISE = 1000, 0.4  # with less noise nearly everything is right, and nothing is told of intervals
TRIALS = {"drawings": ("openmoji", 8), "digits": ("digits", 8), "folder": ("folder", 6)}


def dataset(name: str, place: Path) -> Splits:
    """A dataset by its name; ``folder`` is one of patterns under noise that is drawn at `place`."""
    if name != "folder":
        return pick_dataset(name)
    drawn = ToyImages("folder", FOLDER_IMAGES, FOLDER_NOISE)
    for i, label in enumerate(drawn.labels):
        file = place / CLASSES[label] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        drawn.image(i).save(file)
    return pick_dataset(f"folder:{place}")


def trial(splits: Splits, shots: int, seed: int, minutes: float) -> dict[str, object]:
    """One draw: what `auto` said and chose, and how good every method is on the unseen images."""
    parts = [part for part in (splits.train, splits.val, splits.test) if part is not None]
    whole = Joined(parts)
    rows = draw(whole.labels, shots, random.Random(seed))
    unseen = [row for row in range(len(whole)) if row not in {*rows}]
    folder = replace(splits, train=some_of(whole, rows), val=None, test=some_of(whole, []))
    with patch("adaptkit.automatic.auto.Budget", partial(Budget, clock=time.process_time)):
        found = auto(folder, backbone=BACKBONE, minutes=minutes, seed=seed)
    test = in_memory(found.workspace.images(some_of(whole, unseen)))
    images = in_memory(found.found.images(found.workspace))
    task = found.workspace.about(range(len(splits.classnames)), images[:0])
    fixed = {
        one.label: accuracy(learn(one, task, images, found.found.groups, seed), test)
        for one in portfolio(len(images), VIEWS)
    }
    known = found.chosen.expected
    numbers = {"expected": "accuracy", "seen": "seen", "low": "low", "high": "high"}
    said = {} if known is None else {key: getattr(known, name) for key, name in numbers.items()}
    truth = accuracy(found.method, test)
    told = {"seed": seed, "chosen": found.chosen.entry.label, "truth": truth, **said}
    return {**told, "minutes": found.minutes[0], "fixed": fixed}


def told(name: str, rows: list[dict]) -> str:
    """A line of the table: the chosen methods' mean, the best fixed one's, the largest gap, and the coverage."""
    mean = {m: sum(r["fixed"][m] for r in rows) / len(rows) for m in rows[0]["fixed"]}
    best = max(mean, key=mean.__getitem__)
    own, expected = (sum(r[key] for r in rows) / len(rows) for key in ("truth", "expected"))
    worst = max(r["fixed"][best] - r["truth"] for r in rows)
    held = sum(r["low"] <= r["truth"] <= r["high"] for r in rows)
    width = sum(r["high"] - r["low"] for r in rows) / len(rows)
    a, b, c, d, e = (f"{100 * value:.1f}" for value in (own, mean[best], worst, expected, width))
    return f"| {name} | {len(rows)} | {a} | {best} {b} | {c} | {d} | {e} | {held} |"


def main(
    out: str, names: str = "drawings,digits,folder", draws: str = "20", minutes: str = "1", first: str = "1"
) -> None:
    """Run what is not done of so many draws of each dataset, by seeds from `first` on, and print the table."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    print("| images | draws | auto, % | best fixed method, % | most it is below, points | expected | width | held |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names.split(","):
        what, shots = TRIALS[name]
        file, splits = folder / f"{name}.jsonl", dataset(what, folder / "patterns")
        done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        for seed in range(int(first) + len(done), int(first) + int(draws)):
            done.append(trial(splits, shots, seed, float(minutes)))
            with file.open("a") as lines:
                lines.write(json.dumps(done[-1]) + "\n")
        if done:
            print(told(name, done), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
