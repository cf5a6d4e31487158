"""Toy tasks of any size for any method that runs on features, and exact counts of the memory that it takes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adaptkit import Images, Method, Task, adapt, method, predict, unit
from adaptkit.features.needs import Need
from adaptkit.methods.arrays import NoTowers
from adaptkit.runs import plugins
from adaptkit.testing.report import briefly

STEPS = 4  # of training: what is trained grows in its steps as its paper says, and is not what is looked for
OTHER_AXES = {"T": 3, "K": 3, "2": 2}  # of tokens and the like


@dataclass(frozen=True)
class Sizes:
    """``N`` queries, ``C`` classes, ``S`` support images in all, width ``D``, ``V`` views where a method reads views.

    There are as many images without labels as queries; and ``val`` labelled ones.
    """

    N: int = 50
    C: int = 6
    S: int = 18
    D: int = 12
    V: int = 3
    val: int = 50


class Sentences(NoTowers):
    """In place of a text tower: any sentences have embeddings, of which nothing but their number is known.

    Attributes:
        asked: how often embeddings were asked for.
    """

    asked = 0

    def tokenize(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        """A token for each word."""
        words = [s.split() for s in sentences]
        ids = torch.zeros(len(words), max(map(len, words)) + 2, dtype=torch.long)
        for row, own in zip(ids, words, strict=True):
            row[1 : len(own) + 1] = torch.tensor([1 + sum(map(ord, word)) for word in own])
        return {"input_ids": ids}

    def encode_text(self, sentences: Sequence[str]) -> Tensor:  # type: ignore[override]
        """Rows ``(P, D)``."""
        self.asked += 1
        return torch.randn(len(sentences), self.dim, generator=torch.Generator().manual_seed(len(sentences)))

    def require(self, *points: str) -> None:
        """There is nothing to tap."""
        raise ValueError(f"this method needs the towers themselves; got none to tap at {', '.join(points)}")


def made(name: str) -> Method:
    """A method as its author means it, but for the length of its training."""
    return method(name, **briefly(plugins.table("methods")[name], STEPS))


def on_features() -> dict[str, str]:
    """Every registered method, with what keeps it from running on features alone; nothing for most."""
    reasons = {}
    for name in plugins.table("methods"):
        try:
            built = made(name)
            if any(not need.stored for support in (False, True) for need in built.all_needs(support)):
                raise ValueError("it reads pixels")
            task, queries = task_of(built, Sizes())
            predict(adapt(built, task), queries)
            reasons[name] = ""
        except (ValueError, KeyError) as error:  # a point of the text tower is asked for by name
            reasons[name] = str(error)
    return reasons


def task_of(built: Method, sizes: Sizes) -> tuple[Task, Images]:
    """A task that has what a method reads, and queries: of classes with two sentences, of which half are easy."""
    draw = torch.Generator().manual_seed(0)
    text = unit(torch.randn(sizes.C, 1, sizes.D, generator=draw))
    centres = unit(text[:, 0] + 0.7 * torch.randn(sizes.C, sizes.D, generator=draw) / sizes.D**0.5)

    def images(labels: Tensor, needs: Mapping[str, Need]) -> Any:  # noqa: ANN401 (an array, or arrays by name)
        found = {}
        for name, need in needs.items():
            lead = (len(labels), sizes.V) if need.views else (len(labels),)
            dims = [OTHER_AXES.get(axis, sizes.D) for axis in need.axes]
            noise = torch.randn(*lead, *dims, generator=draw) / sizes.D**0.5
            found[name] = noise + centres[labels].view(len(labels), *[1] * (noise.dim() - 2), sizes.D)
        return found or centres[labels]

    y, q, v = (torch.arange(count) % sizes.C for count in (sizes.S, sizes.N, sizes.val))
    asked = reads(built)
    task = Task.from_arrays(
        (images(y, reads(built, of_support=True)), y),
        text,
        val=(images(v, asked), v) if sizes.val else None,
        pool=images(q, {**asked, **built.pool_needs()}),
        backbone=Sentences(sizes.D, 100.0, 0.0),
    )
    return task, Images.from_arrays(images(q, asked))


def reads(built: Method, of_support: bool = False) -> dict[str, Need]:
    """What a method and those below it read, by name."""
    own = dict(built.support_needs() if of_support else built.needs())
    for child in built.children_methods():
        own = {**reads(child, of_support), **own}
    return own


class Counted(TorchDispatchMode):
    """Counts what tensors are made inside of it, to the byte.

    Attributes:
        calls: operations.
        largest: bytes of the largest tensor, and its shape.
        peak: most bytes of tensors that were there at once, of those made here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.largest, self.peak, self.live = 0, (0, ()), 0, dict[int, int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Run an operation, and look at what it returned."""
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if dense(t)}
        out = func(*args, **(kwargs or {}))
        self.calls += 1
        for t in filter(dense, tree_leaves(out)):
            storage = t.untyped_storage()
            if id(storage) not in given and id(storage) not in self.live:
                self.largest = max(self.largest, (storage.nbytes(), tuple(t.shape)))
                self.live[id(storage)] = storage.nbytes()
                self.peak = max(self.peak, sum(self.live.values()))
                weakref.finalize(storage, self.live.pop, id(storage), None)
        return out


def dense(t: object) -> bool:
    """Whether it is a tensor with a storage of its own."""
    return isinstance(t, Tensor) and t.layout == torch.strided


def counted(work: Callable[[], Any]) -> tuple[Counted, Any]:
    """What some work made, and what it returned."""
    with Counted() as counts:
        result = work()
    return counts, result
