"""``python -m benchmarks.towers_gpu``: steps through the towers on a GPU, ours beside plain code under autocast.

First it holds the GPU's numbers against the processor's, and mixed precision against full; then it prints a table for
`benchmarks/README.md`, with the card's name: milliseconds of a step, forward and backward, and the most memory held.
Where there is no GPU it says so, and with ``--cpu`` it runs small on the processor, to see that it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.frame import Size, ensure_close
from benchmarks.towers import Steps, clip_lora_steps, coop_steps, maple_steps

PRECISIONS = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
ROUNDS, WARM = 10, 3
HEAD = "| step | C | arithmetic | plain ms | adaptkit ms | ratio | plain GB | adaptkit GB |\n" + 8 * "|---" + "|"
MADE = {"coop": coop_steps, "maple": maple_steps, "clip-lora": clip_lora_steps}


def under(precision: str, device: str) -> contextlib.AbstractContextManager:
    """Mixed precision, or none."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device, dtype=dtype) if dtype else contextlib.nullcontext()


def cost(work: Callable[[], list[Tensor]], device: str) -> tuple[float, float]:
    """Milliseconds of a step, the median of some, and GB held at most beyond what there was."""
    for _ in range(WARM):
        work()
    if device == "cpu":
        began = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - began), 0.0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, took = torch.cuda.memory_allocated(), []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return 1e3 * sorted(took)[ROUNDS // 2], (torch.cuda.max_memory_allocated() - before) / 1e9


def check(size: Size, make: Callable[[Size, str], Steps], device: str) -> dict[str, float]:
    """Hold loss and gradients of both ways in full precision to the processor's, and say how far mixed ones are off."""
    want, off = [t.cpu() for t in make(size, "cpu").ours()], {}
    for precision in PRECISIONS:
        steps = make(size, device)
        for name, way in (("ours", steps.ours), ("plain", steps.plain)):
            with under(precision, device):
                got = [t.float().cpu() for t in way()]
            if precision == "32-true":
                for a, b in zip(got, want, strict=True):
                    ensure_close(a, b, 2e-3 * float(b.abs().max()) + 1e-2, f"{name} on {device}")
            far = [float((a - b).norm() / b.norm().clamp_min(1e-6)) for a, b in zip(got, want, strict=True)]
            off[f"{name} {precision}"] = max(far)
    return off


def main() -> None:
    """Check, then print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.towers_gpu", description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="small, on the processor")
    asked = parser.parse_args()
    if not asked.cpu and not torch.cuda.is_available():
        parser.error("there must be a GPU; got none; try --cpu")
    device, counts = ("cpu", (5,)) if asked.cpu else ("cuda", (100, 1000))
    torch.backends.cuda.matmul.allow_tf32 = False
    for name, make in MADE.items():
        off = check(Size(counts[0], 16, 512, 60), make, device)
        print(f"{name} beside the processor:", ", ".join(f"{way} {far:.1e}" for way, far in off.items()), flush=True)
    print(f"\n{torch.cuda.get_device_name() if device == 'cuda' else 'processor'}, torch {torch.__version__}\n\n{HEAD}")
    for name, make in MADE.items():
        for count in counts:
            steps = make(Size(count, 16, 512, 60), device)
            for precision in PRECISIONS:
                with under(precision, device):
                    (plain, much), (ours, less) = cost(steps.plain, device), cost(steps.ours, device)
                print(
                    f"| {name} | {count} | {precision} | {plain:.1f} | {ours:.1f} | {plain / ours:.1f} | "
                    f"{much:.2f} | {less:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
