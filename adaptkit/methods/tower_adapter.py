"""What methods share that change both towers: class sentences and images meet as the changed towers encode them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adaptkit.features.items import Images
from adaptkit.features.needs import Need, Pixels
from adaptkit.io.ranges import Size
from adaptkit.io.text import template
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from adaptkit.towers.backbone import Backbone, unit
from adaptkit.towers.once import Once
from adaptkit.towers.prompting import chunked
from adaptkit.towers.reading import read_whole


class TowerAdapter(Method):
    """Cosine of images and class sentences, both by the towers that `changed` changes.

    Write `fit`, which keeps ``self.backbone``, creates what is learned and calls `retarget`, and `changed`.
    """

    template: str = ""  # a class's sentence, its name in place of {}; without, the first of the task's
    chunk: Size = 256  # sentences encoded at a time
    augment: str = "wide-crop-flip"  # how the view of each step is drawn

    if TYPE_CHECKING:
        backbone: Backbone  # no option
        tokens: dict[str, Tensor]
        counts: list[int]
        once: Once

    def needs(self) -> Mapping[str, Need]:
        """The image as it enters the tower."""
        return {"pixels": Pixels()}

    def support_needs(self) -> Mapping[str, Need]:
        """A random view of each support image, drawn anew."""
        return {"views": Pixels(views=1, augment=self.augment, fresh=True)}

    def changed(self, tower: str) -> AbstractContextManager[None]:
        """A block in which a tower, ``"image"`` or ``"text"``, computes as it is changed."""
        raise NotImplementedError(f"{type(self).__name__} must define changed(tower)")

    def sentences(self, task: Task) -> Sequence[Sequence[str]]:
        """Of each class: one, of the `template` or the task's first."""
        if not self.template:
            return [own[:1] for own in task.prompts]
        given = template(self.template, f"{type(self).__name__}.template")
        return [[given.replace("{}", name.replace("_", " "))] for name in task.classnames]

    def retarget(self, task: Task) -> None:
        """The same towers, and the sentences of other classes."""
        own = self.sentences(task)
        read_whole(task.backbone, own)
        self.tokens = task.backbone.tokenize([sentence for sentences in own for sentence in sentences])
        self.counts, self.once = [len(sentences) for sentences in own], Once()

    def learned(self, tower: str) -> Sequence[Tensor]:
        """What a tower's change depends on, besides the options."""
        return [*self.parameters(), *self.buffers()]

    def text(self) -> Tensor:
        """Class embeddings, unit-norm, ``(C, D)``: with a gradient, or as remembered where none is wanted."""
        options = [float(v) for f in fields(self) if isinstance(v := getattr(self, f.name), int | float)]
        return self.once(self._text, torch.tensor(options), *self.learned("text"))

    def _text(self) -> Tensor:
        rows = self.encode(self.tokens)
        if max(self.counts) == 1:
            return rows
        return unit(torch.stack([own.mean(0) for own in rows.split(self.counts)]))

    def drawn_rows(self, labels: Tensor) -> Tensor:
        """The number of one sentence about each of some classes, drawn anew, ``(B,)``."""
        counts, labels = torch.tensor(self.counts), labels.cpu()
        return (counts.cumsum(0) - counts)[labels] + (torch.rand(len(labels)) * counts[labels]).long()

    def drawn(self, labels: Tensor) -> dict[str, Tensor]:
        """Tokens of one sentence about each of some classes, drawn anew."""
        rows = self.drawn_rows(labels)
        return {name: value[rows] for name, value in self.tokens.items()}

    def encode(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Unit-norm embeddings of P tokenised sentences, ``(P, D)``, by the changed tower."""

        def part(rows: Tensor) -> Tensor:
            with self.changed("text"):  # here, not around: a chunk is computed again in the backward pass
                return unit(self.backbone.encode_text({name: value[rows] for name, value in tokens.items()}))

        return chunked(part, torch.arange(len(tokens["input_ids"])), self.chunk)

    def images(self, pixels: Tensor) -> Tensor:
        """Unit-norm embeddings of images, ``(B, D)``, by the changed tower."""
        with self.changed("image"):
            return unit(self.backbone.encode_image(pixels))

    def forward(self, batch: Images) -> Tensor:
        """Logits, ``(B, C)``."""
        text = self.text()
        return self.backbone.logits(self.images(batch.pixels), text)
