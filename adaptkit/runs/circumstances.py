"""What else made a number and stands in no protocol: the code, module by module, threads and the processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from adaptkit.io.code import digest_of_modules
from adaptkit.io.files import canonical

CODE = "code"  # beside the records: one file for each code, as many cells share one


def circumstances(device: torch.device) -> dict[str, str]:
    """Threads that a tower may take, and what computes: a GPU by its name, a processor by its instructions."""
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if device.type == "cpu":
        what = torch.backends.cpu.get_cpu_capability()
    return {"threads": str(torch.get_num_threads()), "processor": what}


def code_name(modules: Mapping[str, str]) -> str:
    """What a record calls the code that made it: the name of the file that lists the modules, without its suffix."""
    return digest_of_modules(modules)[:12]


def code_file(modules: Mapping[str, str], kept: Callable[[str], bool]) -> dict[str, bytes]:
    """The file that lists modules with their digests, by its path from the records, unless it is there already."""
    path = f"{CODE}/{code_name(modules)}.json"
    return {} if kept(path) else {path: canonical(modules)}
