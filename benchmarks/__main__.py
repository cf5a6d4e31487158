"""``python -m benchmarks [NAME...] [--size small|C100|C1000]``: cases whose names begin so, as a table.

With ``OMP_NUM_THREADS=1`` seconds are the processor's, with more threads the wall's.
"""

import argparse

import torch

from benchmarks.frame import SIZES, cases, gemm_rate

HEAD = ("what", "size", "plain s", "measured on", "adaptkit s", "ratio", "target", "limit s", "held GB")


def main() -> None:
    """Run cases and print a line for each as soon as it is done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--size", choices=SIZES, default="C100")
    asked = parser.parse_args()
    chosen = {n: c for n, c in cases().items() if not asked.names or n.startswith(tuple(asked.names))}
    if not chosen:
        parser.error(f"names must begin like one of {', '.join(cases())}; got {', '.join(asked.names)}")
    rate = gemm_rate()
    threads = torch.get_num_threads()
    clock = "1 thread, seconds of the processor" if threads == 1 else f"{threads} threads, seconds of the wall"
    print(f"{clock}; limit: the products alone, at {rate / 1e9:.0f} GFLOP/s measured just now")
    print(("{:28}{:>6}{:>11}  {:24}{:>11}{:>8}{:>8}{:>9}{:>15}").format(*HEAD))
    for name, case in chosen.items():
        row, target = case.run(SIZES[asked.size]), case.targets.get(asked.size)
        ratio = row.plain / row.ours
        print(
            f"{name:28}{asked.size:>6}{row.plain:11.4g}  {row.timed:24}{row.ours:11.3g}"
            f"{f'{ratio:.3g}' if ratio < 1000 else f'{ratio:,.0f}':>8}"
            f"{f'{target:g}' if target else '-':>8}{row.flops / rate:9.2g}"
            f"{f'{row.held[0]:.2f} to {row.held[1]:.2f}' if any(row.held) else '-':>15}",
            flush=True,
        )


if __name__ == "__main__":
    main()
