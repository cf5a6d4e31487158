"""``python -m benchmarks.gpu``: all that is to be measured on a GPU, at most eight minutes, as tables of Markdown.

Steps through the towers, extraction, methods at ImageNet's size, and a training on all GPUs. Results are held to the
processor's at a small size first. What fails says so in a line, and the rest goes on. ``--cpu --small`` runs all of it
small on the processor, to see that it runs; ``--only towers,extraction,methods,devices`` runs a part.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from adaptkit import Images, Method, Task, adapt, method, predict
from adaptkit.features.decoding import cores
from adaptkit.methods.schedule import Schedule
from benchmarks import extraction, towers_gpu
from benchmarks.frame import SIZES, Size, ensure_close, features

QUERIES, STREAM = 50_000, 512  # images asked about at once, and of a stream
GOALS = {  # seconds, or milliseconds an image, on a GPU at 1000 classes
    "linear-probe": "5 s",
    "proker": "3 s",
    "clap": "1 s",
    "in-map": "2 s",
    "oga": "0.2 ms",
    "dota": "0.5 ms",
    "ecalp": "0.3 ms",
    "tda": "-",
}
ROOM = 2e-3  # of the largest logit, between the processor and a GPU


def waited(device: str) -> float:
    """The wall's clock, once the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def most(device: str) -> float:
    """GB that the device held at most since it was asked last."""
    if device != "cuda":
        return 0.0
    held = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return held


def asked_of(size: Size, name: str, device: str) -> tuple[Task, Images, dict[str, object]]:
    """A task on a device, what is asked, and how a training goes there."""
    task, test, _ = features(size)
    count = STREAM if method(name).scope == "stream" else QUERIES
    rows = test.repeat(-(-count // len(test)), 1)[: min(count, 10 * size.N)]
    rows = rows + 0.01 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(2)) / size.D**0.5
    return task.to(device), Images.from_arrays(rows).to(device), {"max_steps": 100} if name == "clap" else {}


def adapted_on(size: Size, name: str, device: str) -> tuple[Method, Images, float]:
    """A method adapted on a device, what it is asked, and the seconds of adapting it."""
    task, asked, trainer = asked_of(size, name, device)
    torch.manual_seed(0)
    began = waited(device)
    adapted = adapt(method(name), task, trainer=trainer)
    return adapted, asked, waited(device) - began


def method_row(name: str, size: Size, device: str) -> str:
    """A line: adapting and answering, held to the processor at a small size."""
    want, got = (predict(*adapted_on(SIZES["small"], name, on)[:2]).cpu() for on in ("cpu", device))
    ensure_close(got, want, ROOM * float(want.abs().max()), name)
    most(device)
    adapted, asked, fit = adapted_on(size, name, device)
    fit_gb = most(device)
    if adapted.scope == "stream":
        model, stream = copy.deepcopy(adapted), asked.bind(adapted.needs()).load()
        with torch.no_grad():
            online, replayed = per_image(model, stream, device), waited(device)
            predict(adapted, asked)
        told = f"{online:.2f} ms an image, {1e3 * (waited(device) - replayed) / len(asked):.3f} ms replayed"
    else:
        began = waited(device)
        predict(adapted, asked)
        told = f"{waited(device) - began:.2f} s for {len(asked):,}"
    return f"| {name} | {size.C} | {fit:.2f} | {told} | {GOALS[name]} | {fit_gb:.2f} | {most(device):.2f} |"


def per_image(model: Method, stream: Images, device: str) -> float:
    """Milliseconds of an image that comes alone, of the second half of a stream."""
    half = len(stream) // 2
    model.replay(stream[:half])
    began = waited(device)
    for i in range(half, len(stream)):
        model(stream[i : i + 1])
    return 1e3 * (waited(device) - began) / max(1, len(stream) - half)


def methods(size: Size, device: str) -> Iterator[Callable[[], str]]:
    """Methods at the issue's size."""
    yield lambda: "\n| method | C | adapting s | answering | goal | GB adapting | GB answering |\n" + 7 * "|---" + "|"
    for name in GOALS:
        yield lambda name=name: method_row(name, size, device)  # type: ignore[misc]


def extractions(size: Size, device: str) -> Iterator[Callable[[], str]]:
    """Pictures a second: the tower alone, decoding alone, and ways to do both."""
    small = size.C < 100
    kind, count, batch = ("small", 12, 8) if small else ("vit-b-16", 4096, 256)
    yield lambda: "\n| precision | way | pictures a second | share of the limit |\n" + 4 * "|---" + "|"
    yield lambda: weights_row(kind, count, batch, device)
    for precision in ("bf16-mixed", "32-true"):

        def work(precision: str = precision) -> str:
            found = extraction.compared(kind, count, batch, precision, device, 0 if small else cores())  # type: ignore[arg-type]
            least = extraction.limit(found, device)
            return "\n".join(
                f"| {precision} | {way} | {count / s:,.0f} | {least / s:.2f} |" for way, s in found.items()
            )

        yield work


def weights_row(kind: str, count: int, batch: int, device: str) -> str:
    """The tower alone with weights of sixteen bits."""
    tower = copy.copy(extraction.backbone(kind))
    tower.model = copy.deepcopy(tower.model).to(device, torch.bfloat16)
    pixels = torch.rand(batch, 3, extraction.SIDE, extraction.SIDE, device=device, dtype=torch.bfloat16)
    with torch.no_grad():
        extraction.embedded(tower, pixels)
        began = waited(device)
        for _ in range(max(1, count // batch)):
            extraction.embedded(tower, pixels)
    rate = max(1, count // batch) * batch / (waited(device) - began)
    return f"| bf16 weights | tower alone | {rate:,.0f} | - |"


def towers(size: Size, device: str) -> Iterator[Callable[[], str]]:
    """Steps through the towers: see `benchmarks.towers_gpu`, which prints as it goes."""

    def work() -> str:
        before, sys.argv = sys.argv, ["benchmarks.towers_gpu", *["--cpu"] * (device == "cpu")]
        try:
            towers_gpu.main()
        finally:
            sys.argv = before
        return ""

    yield work


def devices(size: Size, device: str) -> Iterator[Callable[[], str]]:
    """The same training on one device and on all of them: two processes where there are no GPUs."""

    def work() -> str:
        count = torch.cuda.device_count() if device == "cuda" else 2
        if count < 2:
            return f"a training on several devices was left out: there is {count} GPU"
        task, asked, _ = asked_of(SIZES["small"], "task-res", device)
        got, took = dict[int, Tensor](), dict[int, float]()
        for n in (1, count):
            torch.manual_seed(0)
            began = waited(device)
            schedule = Schedule(epochs=5, batch_size=7, lr=1e-3)
            adapted = adapt(method("task-res", schedule=schedule), task, trainer={"devices": n})
            got[n], took[n] = predict(adapted, asked).cpu(), waited(device) - began
        ensure_close(got[count], got[1], 1e-3 * float(got[1].abs().max()), "logits")
        head = "\n| devices | s, starting processes included |\n|---|---|\n"
        return head + "\n".join(f"| {n} | {seconds:.1f} |" for n, seconds in took.items())

    yield work


PARTS = {"towers": towers, "extraction": extractions, "methods": methods, "devices": devices}


def main() -> None:
    """Run the parts, a line as soon as it is known."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="on the processor")
    parser.add_argument("--small", action="store_true", help="sizes that take no time")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    asked = parser.parse_args()
    if not asked.cpu and not torch.cuda.is_available():
        parser.error("there must be a GPU; got none; try --cpu --small")
    device, size = ("cpu" if asked.cpu else "cuda"), SIZES["small" if asked.small else "C1000"]
    torch.backends.cuda.matmul.allow_tf32 = False
    card = torch.cuda.get_device_name() if device == "cuda" else "processor"
    print(f"{card}, {cores()} cores, torch {torch.__version__}", flush=True)
    for name in asked.only.split(","):
        began = time.perf_counter()
        for work in PARTS[name](size, device):
            try:
                print(work(), flush=True)
            except Exception as error:
                print(f"{name} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
        print(f"\n{name}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
