"""Where a tower can be entered: a point lets a function rewrite what leaves it, inside a ``with`` block only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn

Tap = Callable[[Tensor, Tensor], Tensor]


class Point:
    """A module of a tower that can be tapped. A subclass may intervene by other means than a hook on a module.

    Attributes:
        module: holds the point's weights; called with its input first, it returns one tensor.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @contextlib.contextmanager
    def attach(self, fn: Tap) -> Iterator[None]:
        """Rewrite what leaves the point: ``fn(input, output)`` returns the output to use, and runs after the module.

        Of several functions the first to be attached acts first.
        """
        handle = self.module.register_forward_hook(lambda _m, args, out: fn(args[0], out))
        try:
            yield
        finally:
            handle.remove()

    @property
    def tapped(self) -> bool:
        """Whether anything is attached now."""
        return bool(self.module._forward_hooks)

    def __call__(self, x: Tensor) -> Tensor:
        """What leaves the point for an input, taps and swapped weights included."""
        return self.module(x)

    def untapped(self, x: Tensor) -> Tensor:
        """What leaves the point for an input where nothing is attached; swapped weights count."""
        return self.module.forward(x)

    def __repr__(self) -> str:
        return f"Point({type(self.module).__name__})"


def as_points(given: Mapping[str, Point | nn.Module]) -> dict[str, Point]:
    """Points by name; a module becomes one, the same under all its names."""
    made = {id(m): Point(m) for m in given.values() if isinstance(m, nn.Module)}
    return {name: p if isinstance(p, Point) else made[id(p)] for name, p in given.items()}
