"""What cells share must stay as it is: the towers, the tensors of the task, whatever the cache keeps in memory.

A method that writes to one of these changes what every later cell reads. Looking costs a pass over the weights; they
are digested in full only where that pass, a version counter or an address differs.
"""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaptkit.features.cache import FeatureCache
from adaptkit.features.items import Images
from adaptkit.methods.task import Task
from adaptkit.runs.evaluation_sets import EvaluationSet
from adaptkit.towers.backbone import Backbone

ATTRIBUTES = ("dim", "width", "depth", "logit_scale", "logit_bias", "vocabulary", "prefix", "fingerprint")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
BLOCK = 2**20  # words that are summed at a time


class Guard:
    """Remembers what cells share, and says what has changed."""

    def __init__(self, cache: FeatureCache, tests: Sequence[EvaluationSet]) -> None:
        self.cache, self.tests = cache, tests
        self.towers = {name: (state(tower), weights(tower.model)) for name, tower in cache.towers.items()}
        self.classes = verbs(cache.own)[0]
        self.sums: dict[str, int] = {}

    def look(self, tasks: Sequence[Task]) -> None:
        """Remember the tensors that a cell is about to share."""
        self.sums = self._tensors(tasks)

    def changed(self, tasks: Sequence[Task]) -> str:
        """What is not as it was remembered, in words; "" where all is."""
        for name, tower in self.cache.towers.items():
            if what := self._tower(name, tower):
                return f"{what} of the backbone{f' {name!r}' * bool(name)}"
        now = self._tensors(tasks)
        return next((what for what, value in self.sums.items() if now.get(what, value) != value), "")

    def _tower(self, name: str, tower: Backbone) -> str:
        """What has changed of one tower."""
        now, before = (state(tower), weights(tower.model)), self.towers.get(name)
        if before and now[0] != before[0]:
            return "attributes, modes or hooks"
        if before and [w[::3] for w in now[1]] != [w[::3] for w in before[1]]:  # buffers that are not saved count, too
            return "weights"
        if now != before and tower.digest() != tower.fingerprint:
            return "weights"
        self.towers[name] = now  # loaded since, or written to and set back
        return ""

    def _tensors(self, tasks: Sequence[Task]) -> dict[str, int]:
        """A checksum of each tensor that is no tower's."""
        found: dict[str, int] = {}
        for i, task in enumerate(tasks):
            for part in ("support", "val", "pool"):
                found |= sums(getattr(task, part), f"of the {part} images{f' of task {i + 1}' * (i > 0)}")
        for i, tested in enumerate(self.tests):
            found |= sums(tested.images, f"of test set {i + 1}{f', {tested.name!r}' * bool(tested.name)}")
        for name, thing in vars(self.cache).items():
            for where, held in tensors(thing):
                found[f"{name}{where} in the cache's memory"] = checksum(held)
        return found


def state(tower: Backbone) -> Any:  # noqa: ANN401 (compared for equality only)
    """What a tower is besides its weights: attributes, and the modes and hooks of its modules."""
    modules = [
        (name, id(m), m.training, *(len(getattr(m, kind, ())) for kind in HOOKS))
        for name, m in tower.model.named_modules()
    ]
    asks = [name for name, p in tower.model.named_parameters() if p.requires_grad]
    points = [(name, id(point)) for name, point in tower.points.items()]
    return repr([getattr(tower, name, None) for name in ATTRIBUTES]), modules, asks, points, verbs(tower)


def verbs(tower: Backbone) -> Any:  # noqa: ANN401 (compared for equality only)
    """What a tower does: the functions of its classes, and those that were put in their places."""
    own = {name: value for cls in type(tower).__mro__ for name, value in vars(cls).items() if callable(value)}
    instead = [name for name in vars(tower) if callable(getattr(type(tower), name, None))]
    return sorted((name, id(value)) for name, value in own.items()), instead


@torch.no_grad()
def weights(model: nn.Module) -> list[tuple[str, int, int, int]]:
    """Of each weight its name, address, how often it was written to, which not all writing counts, and a sum."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return [(name, w.data_ptr(), w._version, total(w)) for name, w in named]


def total(weight: Tensor) -> int:
    """A sum of the bits that heeds their order, on the weight's own device."""
    flat = weight.detach().contiguous().reshape(-1)
    if flat.storage_offset() * flat.element_size() % 8:
        flat = flat.clone()
    bits = flat.view(torch.uint8)
    whole = len(bits) // 8 * 8
    words, rest = bits[:whole].view(torch.int64), bits[whole:].long()
    out = 0
    for k, part in enumerate(words.split(BLOCK)):
        mixed = part ^ (part >> 31)  # so that no bit counts at the top alone, where pairs of flips would cancel
        out += (2 * k + 1) * int((mixed * factors(bits.device)[: len(part)]).sum())
    return (out + int((rest * factors(bits.device)[: len(rest)]).sum())) % 2**64


@cache
def factors(device: torch.device) -> Tensor:
    """Odd numbers without a pattern, one for each word of a block."""
    draw = torch.Generator().manual_seed(1)
    return (2 * torch.randint(2**62, (BLOCK,), generator=draw) + 1).to(device)


def sums(images: Images | None, of: str) -> dict[str, int]:
    """Checksums of which images some are, and of their labels."""
    held = {} if images is None else {"which": images.index, "targets": images.targets}
    return {f"{name} {of}": checksum(t) for name, t in held.items() if t is not None}


def checksum(held: Tensor | np.ndarray) -> int:
    """Of the bytes."""
    array = held.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy() if isinstance(held, Tensor) else held
    return zlib.crc32(np.ascontiguousarray(array).data) if array.size else 0


def tensors(thing: Any, where: str = "") -> Iterator[tuple[str, Tensor | np.ndarray]]:  # noqa: ANN401 (anything)
    """The arrays in nested mappings and sequences, with the way to each."""
    if isinstance(thing, Tensor | np.ndarray):
        yield where, thing
    elif isinstance(thing, Mapping):
        for key, value in thing.items():
            yield from tensors(value, f"{where}[{key!r}]")
    elif isinstance(thing, list | tuple):
        for i, value in enumerate(thing):
            yield from tensors(value, f"{where}[{i}]")


@contextmanager
def alone(seed: int) -> Iterator[None]:
    """A cell by itself: every global generator starts from its seed; switches and the folder are set back after it.

    The kit draws from torch's generator alone; libraries that methods use may draw from the others.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    dtype, grad, threads = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    where = os.getcwd()
    try:
        yield
    finally:
        os.chdir(where)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
