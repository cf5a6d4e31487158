"""Queries that are more than memory holds: answered from a mapped file, batch by batch, and held in memory at once.

``python -m benchmarks.streaming --rows 1000000`` runs each way in a process of its own and prints the table of
`benchmarks/README.md`: seconds, and the most memory that the process held, the pages of the mapped file among it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptkit import Method, Task, adapt, method, predict_batches, unit
from adaptkit.methods.evaluation.condensed import Condensed
from adaptkit.methods.evaluation.kinds import evaluation
from benchmarks.frame import SIZES, Row, Size, case, features, gemm_rate, measured, resident

PART = 2**14  # rows that are drawn together
WAYS = ("plain", "memmap", "generator", "metrics")
HEAD = "| method | queries | way | s | limit s | most GB | GB of it the file's pages | right |\n" + 8 * "|---" + "|"


def labels_of(size: Size, count: int) -> Tensor:
    """Classes of the queries, in turn."""
    return torch.arange(count) % size.C


def write_queries(path: Path, size: Size, count: int) -> None:
    """A file of float16 rows, ``(N, D)``, of which zero-shot gets about half right."""
    task, *_ = features(size)
    centres, draw = unit(task.text), torch.Generator().manual_seed(1)
    rows = np.lib.format.open_memmap(path, "w+", np.float16, (count, size.D))
    for start in range(0, count, PART):
        own = centres[labels_of(size, count)[start : start + PART]]
        noise = torch.randn(own.shape, generator=draw)
        rows[start : start + PART] = unit(own + 5.0 * noise / size.D**0.5).half().numpy()
    rows.flush()


def adapted(name: str, size: Size) -> Method:
    """A method, adapted without a search."""
    task, *_ = features(size)
    return adapt(method(name), Task.from_arrays((task.support.rows.arrays[""], task.support.labels), task.text))


def ours(asked: Method, path: Path, labels: Tensor, way: str = "memmap") -> float:
    """Share of right answers; as ``metrics`` calibration and the others are made of them, too."""
    rows, kind = np.load(path, mmap_mode="r"), evaluation("classification")
    queries = rows if way != "generator" else parts_of(rows)
    answers = ((labels[at], logits) for at, logits in predict_batches(asked, queries))
    if way == "metrics":
        return kind.metrics_of(Condensed.joined([kind.condense(logits, y) for y, logits in answers]))["accuracy"]
    return sum(int((logits.argmax(1) == y).sum()) for y, logits in answers) / len(labels)


def parts_of(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of the rows, each read when it is asked for."""
    for start in range(0, len(rows), PART):
        yield np.array(rows[start : start + PART])


def plain(asked: Any, path: Path, labels: Tensor) -> float:  # noqa: ANN401 (its tensors are read)
    """The usual way: all features in memory as float32, all logits, then the share of right ones."""
    x = unit(torch.from_numpy(np.load(path)).float())
    logits = 100 * x @ asked.text.T
    if hasattr(asked, "weight"):
        logits += asked.alpha * (x @ asked.weight.T + asked.bias)
    return float((logits.argmax(1) == labels).double().mean())


def compared(name: str, size: Size) -> Row:
    """A file of queries, answered both ways."""
    count, asked = 10 * size.N, adapted(name, size)
    with tempfile.TemporaryDirectory() as folder:
        path, labels = Path(folder) / "queries.npy", labels_of(size, count)
        write_queries(path, size, count)
        before, less, got = measured(lambda: ours(asked, path, labels))
        after, much, want = measured(lambda: plain(asked, path, labels))
    if abs(got - want) > 1e-4:
        raise ValueError(f"the share of right answers must be the same both ways; got {got} and {want}")
    return Row(after, before, f"{count} queries", 2 * count * size.C * size.D, (much, less))


@case("predict in batches", C100=1, C1000=1)
def zero_shot_batches(size: Size) -> Row:
    """Zero-shot."""
    return compared("zero-shot", size)


@case("predict in batches gda", C100=1, C1000=1)
def gda_batches(size: Size) -> Row:
    """The plain way makes two products where one classifier does."""
    return compared("gda", size)


def alone(name: str, way: str, path: Path, size: Size) -> None:
    """One way in this process: seconds, memory and right answers, as JSON."""
    status = Path("/proc/self/status")
    asked, count = adapted(name, size), len(np.load(path, mmap_mode="r"))
    labels = labels_of(size, count)
    began = time.perf_counter()
    right = plain(asked, path, labels) if way == "plain" else ours(asked, path, labels, way)
    took = time.perf_counter() - began
    found = {"s": took, "most": resident(status, "VmHWM") / 1e6, "file": resident(status, "RssFile") / 1e6}
    print(json.dumps({**found, "right": right, "rate": gemm_rate()}))


def main() -> None:
    """Write the queries, run each way in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--size", choices=SIZES, default="C1000")
    parser.add_argument("--file", type=Path, help="of queries; made unless it is there")
    parser.add_argument("--alone", nargs=2, metavar=("METHOD", "WAY"), help=argparse.SUPPRESS)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    told = parser.parse_args()
    size, path = SIZES[told.size], told.file or Path(tempfile.mkdtemp()) / "queries.npy"
    if told.alone:
        alone(*told.alone, path, size)
        return
    if not path.exists():
        write_queries(path, size, told.rows)
    print(HEAD)
    for name in ("zero-shot", "gda"):
        for way in told.ways:
            words = [sys.executable, "-m", "benchmarks.streaming", "--size", told.size, "--file", str(path)]
            done = subprocess.run([*words, "--alone", name, way], check=True, capture_output=True, text=True)
            got = json.loads(done.stdout)
            limit = 2 * told.rows * size.C * size.D / got["rate"]
            print(
                f"| {name} | {told.rows:,} | {way} | {got['s']:.1f} | {limit:.1f} | {got['most']:.2f} | "
                f"{got['file']:.2f} | {got['right']:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
