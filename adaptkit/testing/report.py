"""The contract on the command line: every check on some methods, one line each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adaptkit.options import method
from adaptkit.testing.checks import CHECKS, check
from adaptkit.testing.toy import toy_task


def check_methods(names: Sequence[str]) -> int:
    """Run every check on every method, print what happened, and return the exit code: 1 when one failed."""
    torch.set_num_threads(1)  # tiny tensors
    task, queries = toy_task()
    failures = 0
    for name in names:
        print(name)
        for title in CHECKS:
            try:
                check(title, lambda name=name: method(name), task, queries)  # type: ignore[misc]
                print(f"  passed  {title}")
            except Exception as error:
                failures += 1
                print(f"  FAILED  {title}: {type(error).__name__}: {' '.join(str(error).split())}")
    print(f"{len(names)} methods, {len(names) * len(CHECKS) - failures} passed, {failures} failed")
    return 1 if failures else 0
