"""Degenerate tasks and wrong arrays for every registered method: the right shape of finite answers, or one ValueError.

``python -m tests.fuzz.arrays 10000`` tries so many tasks, prints what broke by method and the counts, and exits with 1
when anything did.
"""

import sys
import time
import warnings
from collections import Counter

import numpy as np
import torch

from adaptkit import Task, adapt, predict
from adaptkit.methods.searched import EdgeOfGridWarning
from adaptkit.runs import plugins
from adaptkit.testing.report import brief

SMALL = (1, 2, 3, 5, 8)
SHAPES = ("plain", "one class", "one dimension", "no support", "a class without a shot", "one image", "one shot")
VALUES = ("normal", "zero rows", "all zero", "identical", "tiny", "huge", "integers", "collinear", "whole text equal")
WRONG = ("nothing", "nothing", "nothing", "nan", "inf", "text nan", "one-hot", "half", "strings", "far label", "width")


def draw(rng):
    """One task: what is degenerate about it, its arrays, and queries."""
    shape, values, wrong = (str(rng.choice(kinds)) for kinds in (SHAPES, VALUES, WRONG))
    classes, width, each = int(rng.choice([2, 3, 7])), int(rng.choice([2, 4, 16])), int(rng.choice([1, 2, 4]))
    classes, width, each = 1 if shape == "one class" else classes, 1 if shape == "one dimension" else width, each
    y = np.arange(classes).repeat(1 if shape == "one shot" else each)
    if shape in ("no support", "one image"):
        y = y[: shape == "one image"]
    if shape == "a class without a shot":
        y = y[y > 0]
    views = int(rng.choice([0, 0, 1, 3]))
    x = rng.standard_normal((len(y), *[views] * (views > 0), width))
    text, q = rng.standard_normal((classes, width)), rng.standard_normal((int(rng.choice([0, 1, 2, 9])), width))
    x = x + 2 * text[y].reshape(len(y), *[1] * (views > 0), width)
    x, text, q = (changed(array, values, rng) for array in (x, text, q))
    if values == "whole text equal":
        text = np.repeat(text[:1], classes, 0)
    labels = y
    if wrong in ("nan", "inf") and len(q):
        q = q.astype(float)
        q[0, 0] = float(wrong)
    elif wrong == "text nan":
        text = np.where(np.arange(width) == 0, np.nan, text)
    elif wrong == "one-hot":
        labels = np.eye(classes)[y]
    elif wrong == "half" and len(y):
        labels = y + 0.5
    elif wrong == "strings" and len(y):
        labels = np.array(["a"] * len(y))
    elif wrong == "far label" and len(y):
        labels = y + classes
    elif wrong == "width":
        q = np.concatenate([q, q], 1)
    else:
        wrong = "nothing"
    must_fail = wrong != "nothing"
    val = (x, labels) if rng.random() < 0.3 and len(y) else None
    pool = x if rng.random() < 0.3 else None
    what = f"{shape}, {values}, {wrong}, C={classes} D={width} S={x.shape} N={len(q)} val={val is not None}"
    scale = float(rng.choice([100.0, 1.0, 10.0]))
    return what, must_fail, {"support": (x, labels), "text": text, "val": val, "pool": pool, "logit_scale": scale}, q


def changed(array, values, rng):
    """An array whose values are degenerate in some way."""
    if values == "zero rows" and len(array):
        array[rng.integers(len(array))] = 0
    scale = {"all zero": 0.0, "tiny": 1e-20, "huge": 1e18}.get(values, 1.0)
    array = array * scale
    if values == "identical" and len(array):
        array = np.broadcast_to(array.reshape(-1, array.shape[-1])[:1], array.shape).copy()
    if values == "collinear" and len(array):
        array = array[..., :1] * np.ones(array.shape[-1])
    return (array * 10).astype(int) if values == "integers" else array


def attempt(name, seed):
    """One task for one method; what broke, or nothing, and whether it was answered."""
    what, must_fail, arrays, queries = draw(np.random.default_rng(seed))
    torch.manual_seed(0)
    try:
        task = Task.from_arrays(**arrays)
        adapted = adapt(brief(name, 2), task)
        answers = predict(adapted, queries)
    except ValueError as error:
        text = str(error)
        bad = "\n" in text or len(text) > 400
        return (f"{what}: a message that is not one line: {text!r:.300}" if bad else "", "refused", text)
    except Exception as error:
        return f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:160]}", "broke", ""
    want = (len(queries), len(task.classnames)) if adapted.output == "logits" else (len(queries),)
    if tuple(answers.shape) != want or not answers.isfinite().all():
        return f"{what}: answers {tuple(answers.shape)} in place of {want}, or not finite", "broke", ""
    if must_fail:
        return f"{what}: was answered", "broke", ""
    return "", "answered", ""


def main(count, names=()):
    """Try so many tasks over all methods in turn and print what broke."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning|lightning_fabric")
    warnings.simplefilter("ignore", EdgeOfGridWarning)
    names, found, broken, reasons = names or [*plugins.table("methods")], Counter(), {}, Counter()
    start = time.perf_counter()
    for i in range(count):
        name = names[i % len(names)]
        fault, outcome, why = attempt(name, i // len(names))
        found[outcome] += 1
        if why:
            reasons[why.split(";")[0].split(" got ")[0][:90]] += 1
        if fault:
            broken.setdefault((name, fault.split(": ", 1)[1][:70]), []).append((i // len(names), fault))
    for (name, _), faults in sorted(broken.items()):
        print(f"{name} ({len(faults)}): seed {faults[0][0]}: {faults[0][1]}")
    if "-v" in sys.argv:
        for why, n in reasons.most_common(60):
            print(f"  {n:5} {why}")
    print(f"{count} tasks, {dict(found)}, {time.perf_counter() - start:.0f} s")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), [a for a in sys.argv[2:] if a != "-v"]))
