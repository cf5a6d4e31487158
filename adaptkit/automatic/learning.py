"""One method on some of the labelled images: hyperparameters on a part of them, then everything on all of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from adaptkit.automatic.folds import validation_rows
from adaptkit.automatic.portfolio import Candidate
from adaptkit.features.items import Images
from adaptkit.features.needs import Need
from adaptkit.methods.adapt import adapt_quietly
from adaptkit.methods.explore import allowed
from adaptkit.methods.method import Method
from adaptkit.methods.searched import searched
from adaptkit.methods.task import Task
from adaptkit.runs.build import method


@dataclass
class ReadOnce:
    """Rows of some images, each need read once and kept in memory: folds read them again and again."""

    images: Images
    kept: dict[Need, Tensor] = field(default_factory=dict)

    def read(self, name: str, need: Need, index: Tensor) -> Tensor:
        """One row per index, ``(N, ...)``."""
        if not need.stored or need.fresh:
            return self.images.rows.read(name, need, self.images.index[index])
        if need not in self.kept:
            self.kept[need] = self.images.rows.read(name, need, self.images.index)
        return self.kept[need][index]


def in_memory(images: Images) -> Images:
    """The same images, numbered from 0, of which each need is read once."""
    return Images(ReadOnce(images), torch.arange(len(images)), images.labels, device=images.device)


def learn(candidate: Candidate, task: Task, images: Images, groups: Tensor, seed: int) -> Method:
    """A method that learned from all of some labelled images.

    Where it has hyperparameters to choose, it first learns without those held back, which then choose; with what they
    chose it learns anew from all. What stops by validation images learns from the others alone.

    Args:
        candidate: that learns.
        task: the classes; its own images are not looked at.
        images: labelled.
        groups: ``(N,)``, the same number for images that show the same.
        seed: of what is held back, and of training.
    """
    labels: Tensor = images.labels.cpu()  # type: ignore[union-attr]
    held = torch.zeros(len(labels), dtype=torch.bool)
    if candidate.validates != "nothing":
        held = validation_rows(labels, groups, seed)
    chosen: Mapping[str, float] = {}
    if held.any():
        val = images[held.nonzero()[:, 0]]
        built = adapted_to(candidate, replace(task, support=images[(~held).nonzero()[:, 0]], val=val), seed)
        if candidate.validates == "stopping":
            return built
        chosen = {name: within(built, name, found.chosen) for name, found in searched(built).items()}
    return adapted_to(candidate, replace(task, support=images, val=None), seed, chosen)


def within(built: Method, name: str, value: float) -> float:
    """The value of an option that a search chose, or the nearest that may be given to it."""
    low, high, _ = allowed(built, name)
    return min(max(value, low), high)


def adapted_to(candidate: Candidate, task: Task, seed: int, values: Mapping[str, float] | None = None) -> Method:
    """A method, adapted; what it warns of a search's edges is nobody's concern in a trial."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return adapt_quietly(method(candidate.spec, **(values or {})), task, search="widen")
