"""Weights of frozen towers that are trained: copies that take their places wherever a tower is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from adaptkit.io.ranges import Size
from adaptkit.methods.task import Task
from adaptkit.methods.tower_adapter import TowerAdapter
from adaptkit.towers.backbone import Backbone, unit
from adaptkit.towers.prompting import chunked

Tower = Literal["image", "text"]
OTHER = {"image": "text.", "text": "image."}


class TunedWeights(nn.Module):
    """Copies of some of the towers' weights, which training changes; the others are shared, and stay frozen.

    Attributes:
        names: of the weights, as in `Backbone.weight_names`.
        values: the copies, in that order.

    >>> import torch, adaptkit as ak
    >>> from adaptkit.methods.tuned_weights import TunedWeights, norm_weights
    >>> backbone = ak.load("toy", backbone="toy:0", shots=2, seed=1)[0].backbone
    >>> tuned = TunedWeights(backbone, norm_weights(backbone))
    >>> x = tuned.encode_image(torch.zeros(4, 3, 32, 32), chunk=2)  # (B, D), raw; in the memory of two images
    >>> x.shape, x.requires_grad
    (torch.Size([4, 16]), True)
    """

    def __init__(self, backbone: Backbone, names: Iterable[str]) -> None:
        super().__init__()
        self.backbone, self.names = backbone, list(names)
        self.values = nn.ParameterList(backbone.weight(name).clone() for name in self.names)

    def of(self, tower: Tower) -> Mapping[str, nn.Parameter]:
        """The copies that a tower reads, by name."""
        return {n: p for n, p in zip(self.names, self.values, strict=True) if not n.startswith(OTHER[tower])}

    def placed(self, tower: Tower) -> AbstractContextManager[None]:
        """A block in which a tower computes with the copies."""
        return self.backbone.weights(self.of(tower))

    def encode_image(self, pixels: Tensor, *, chunk: int = 0) -> Tensor:
        """``(B, 3, H, W)`` pixels to raw embeddings, ``(B, D)``.

        Args:
            pixels: as `Backbone.encode_image` takes them.
            chunk: images at a time; with more, each chunk is computed again in the backward pass. 0 is all at once.
        """

        def encode(rows: Tensor) -> Tensor:
            with self.placed("image"):
                return self.backbone.encode_image(pixels[rows.to(pixels.device)])

        return chunked(encode, torch.arange(len(pixels)), chunk or max(1, len(pixels)))

    def encode_text(self, tokens: Mapping[str, Tensor], *, chunk: int = 256) -> Tensor:
        """Tokens of P sentences to raw embeddings, ``(P, D)``; `chunk` sentences at a time."""

        def encode(rows: Tensor) -> Tensor:
            with self.placed("text"):
                return self.backbone.encode_text({name: value[rows] for name, value in tokens.items()})

        return chunked(encode, torch.arange(len(tokens["input_ids"])), chunk)


def norm_weights(backbone: Backbone) -> list[str]:
    """Names of the gains and shifts of every LayerNorm of the towers."""
    return [name for name, slot in backbone.slots().items() if isinstance(slot.module, nn.LayerNorm)]


class TowerTuner(TowerAdapter):
    """Zero-shot by towers of which some weights are trained; classes are their sentences, encoded at every step.

    A subclass says which in `trained`, and has a ``schedule`` option; ``self.tuned`` holds the copies after `fit`.
    Memory grows with ``chunk`` and not with the batch, the classes or their sentences.

    >>> import adaptkit as ak
    >>> from adaptkit.methods.tuned_weights import TowerTuner, norm_weights
    >>> class Norms(TowerTuner):
    ...     "The norms of both towers, trained by cross-entropy."
    ...
    ...     schedule: ak.Schedule = ak.Schedule(epochs=1, lr=1e-3)
    ...
    ...     def trained(self, backbone):
    ...         return norm_weights(backbone)
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.predict(ak.adapt(Norms(), task), test[:4]).shape
    torch.Size([4, 5])
    """

    chunk: Size = 64  # images or sentences at a time, the rest of a batch computed again in the backward pass

    if TYPE_CHECKING:
        tuned: TunedWeights  # no option

    def trained(self, backbone: Backbone) -> Iterable[str]:
        """Names of the weights that are trained: all of them, where a subclass says no other."""
        return backbone.weight_names()

    def fit(self, task: Task) -> None:
        """Copy the weights, and read the class sentences."""
        self.backbone = task.backbone
        self.tuned = TunedWeights(task.backbone, self.trained(task.backbone))
        TowerAdapter.retarget(self, task)  # also where a subclass cannot answer for other classes

    def sentences(self, task: Task) -> Sequence[Sequence[str]]:
        """Of each class: one, of the `template`, or all of the task's."""
        return super().sentences(task) if self.template else task.prompts

    def changed(self, tower: str) -> AbstractContextManager[None]:
        """A block in which a tower computes with the copies."""
        return self.tuned.placed(tower)  # type: ignore[arg-type]

    def learned(self, tower: str) -> Sequence[Tensor]:
        """The copies that a tower reads."""
        return [*self.tuned.of(tower).values()]  # type: ignore[arg-type]

    def images(self, pixels: Tensor) -> Tensor:
        """Unit-norm embeddings of images, ``(B, D)``, `chunk` of them at a time."""
        return unit(self.tuned.encode_image(pixels, chunk=self.chunk))
