"""What methods share that learn tokens in the first blocks of the towers, and train on the pixels of single views."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adaptkit.features.items import Images
from adaptkit.features.needs import Need, Pixels
from adaptkit.io.ranges import Count, Size, Weight
from adaptkit.methods.method import Method
from adaptkit.methods.schedule import DASSL, Schedule
from adaptkit.methods.task import Task
from adaptkit.towers.backbone import Backbone, unit
from adaptkit.towers.prompting import Prompts, image_prompts


class ImagePrompts(Method):
    """Tokens in the first blocks of the image tower; a subclass says which, and gives class embeddings."""

    std: Weight = 0.02  # of random starts

    if TYPE_CHECKING:
        backbone: Backbone  # no option

    def needs(self) -> Mapping[str, Need]:
        """The image itself: nothing above the tokens can be cached."""
        return {"pixels": Pixels()}

    def support_needs(self) -> Mapping[str, Need]:
        """One random view, drawn anew at every step."""
        return {"views": Pixels(views=1, augment="wide-crop-flip", fresh=True)}

    def start_tokens(self, tower: str, n: int, blocks: int) -> list[Tensor]:
        """Where learning starts, ``(n, W)`` for each of so many blocks of a tower."""
        return [self.std * torch.randn(n, self.backbone.width[tower]) for _ in range(blocks)]

    def image_tokens(self) -> Sequence[Tensor]:
        """What enters each block of the image tower from the first on, ``(n, W)`` each."""
        raise NotImplementedError(f"{type(self).__name__} must define image_tokens()")

    def class_embeddings(self) -> Tensor:
        """``(C, D)``, of any norm."""
        raise NotImplementedError(f"{type(self).__name__} must define class_embeddings()")

    def prompted(self, pixels: Tensor) -> Tensor:
        """Raw embeddings of images under the tokens: ``(B, 3, H, W)`` to ``(B, D)``."""
        with self.backbone.taps(image_prompts(self.image_tokens())):
            return self.backbone.encode_image(pixels)

    def forward(self, batch: Images) -> Tensor:
        """Logits, ``(B, C)``."""
        return self.backbone.logits(unit(self.prompted(batch.pixels)), unit(self.class_embeddings()))


class TowerPrompts(ImagePrompts):
    """Tokens in the first blocks of both towers; in the text tower they stand in front of the class name."""

    n: Size = 4  # learned words in front of the class name
    init: str = "a photo of a"  # words whose first n the text prompt starts from; random if there are fewer
    depth: Size = 9  # blocks of the text tower that get tokens of their own

    if TYPE_CHECKING:
        prompts: Prompts  # no option

    def start_words(self, task: Task, depth: int) -> None:
        """Make what the text tower learns: the context and, for the blocks after the first, `deep`."""
        self.backbone = task.backbone
        init = self.init if self.n <= len(self.init.split()) else ""
        self.prompts = Prompts(task.backbone, task.classnames, n=self.n, init=init)
        self.context = nn.Parameter(self.prompts.start(self.std))  # (n, W), P_0
        self.deep = nn.ParameterList(self.start_tokens("text", self.n, depth - 1))  # P_1 and on, each (n, W)

    def retarget(self, task: Task) -> None:
        """The same tokens around the names of other classes."""
        self.prompts = self.prompts.of(task.classnames)

    def class_embeddings(self) -> Tensor:
        """Raw, ``(C, D)``, under the tokens."""
        return self.prompts.encode(self.context, dict(enumerate(self.deep, start=1)))


class IndependentPrompts(TowerPrompts):
    """Tokens of their own in each tower."""

    n_image: Size = 4  # learned tokens in the image tower
    depth_image: Count = 9  # blocks of the image tower that get tokens of their own; 0 leaves it frozen
    schedule: Schedule = replace(DASSL, epochs=20, lr=2.5e-3, batch_size=4)

    tunable = ("context", "deep", "visual")

    def fit(self, task: Task) -> None:
        """Draw the tokens of both towers."""
        if self.depth_image:
            task.backbone.require("image.tokens")
        self.start_words(task, min(self.depth, task.backbone.depth["text"]))
        blocks = min(self.depth_image, task.backbone.depth.get("image", 0))
        self.visual = nn.ParameterList(self.start_tokens("image", self.n_image, blocks))  # each (n_image, W)

    def image_tokens(self) -> Sequence[Tensor]:
        """Those that are learned."""
        return list(self.visual)


class CoupledPrompts(TowerPrompts):
    """Tokens of the text tower, and in the image tower what linear maps make of them."""

    n: Size = 2  # learned tokens in each tower
    depth: Size = 9  # blocks that get tokens of their own, J
    schedule: Schedule = replace(DASSL, epochs=5, lr=3.5e-3, batch_size=4)

    tunable = ("context", "deep", "coupling", "couplings")

    def fit(self, task: Task) -> None:
        """Draw the tokens of the text tower, and the maps."""
        task.backbone.require("image.tokens")
        width, depth = task.backbone.width, min(self.depth, *task.backbone.depth.values())
        self.start_words(task, depth)
        self.coupling = nn.Linear(width["text"], width["image"])  # F_0
        one = nn.Linear(width["text"], width["image"])
        self.couplings = nn.ModuleList(copy.deepcopy(one) for _ in self.deep)  # F_1 to F_{J-1}: equal at the start

    def image_tokens(self) -> Sequence[Tensor]:
        """The text tower's, mapped."""
        pairs = zip([self.coupling, *self.couplings], [self.context, *self.deep], strict=True)
        return [couple(prompt) for couple, prompt in pairs]
