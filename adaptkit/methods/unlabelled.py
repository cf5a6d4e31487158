"""What methods share that learn from unlabelled images, with the labels that they give to them themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit.features.items import Images
from adaptkit.features.needs import Need, Pixels
from adaptkit.features.needs.tokens import before_patches
from adaptkit.io.ranges import Share, Size
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from adaptkit.methods.tuned_weights import TunedWeights, norm_weights
from adaptkit.towers.backbone import Backbone, unit

PATCH = 16  # side of a patch that prompts are drawn as if they were made of, whatever the tower's own is


class PoolLearner(Method):
    """Trained on the pool, by `loss`, with the norms of the image tower among what is learned.

    Write `pool_needs`, and call `start_norms` in `fit`; ``self.tuned.encode_image(pixels)`` is of the learned norms.

    >>> import torch.nn.functional as F, adaptkit as ak
    >>> from adaptkit.methods.unlabelled import PoolLearner
    >>> class SelfTaught(PoolLearner):
    ...     "The norms that make a strong view what zero-shot makes of the whole image."
    ...
    ...     schedule: ak.Schedule = ak.Schedule(steps=2)
    ...
    ...     def pool_needs(self):
    ...         return {"x": ak.Pooled(), "strong": ak.Pixels(views=1, augment="strong", fresh=True)}
    ...
    ...     def fit(self, task):
    ...         self.start_norms(task.backbone)
    ...         self.register_buffer("text", task.text)
    ...
    ...     def logits(self, pixels):
    ...         return self.backbone.logits(ak.unit(self.tuned.encode_image(pixels)), self.text)
    ...
    ...     def forward(self, batch):
    ...         return self.logits(batch.pixels)
    ...
    ...     def loss(self, batch):
    ...         return F.cross_entropy(self.logits(batch.strong[:, 0]), (batch.x @ self.text.T).argmax(1))
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.predict(ak.adapt(SelfTaught(), task), test).shape
    torch.Size([60, 5])
    """

    if TYPE_CHECKING:
        backbone: Backbone  # no options
        tuned: TunedWeights

    def needs(self) -> Mapping[str, Need]:
        """Pixels: the tower is another one."""
        return {"pixels": Pixels()}

    def support_needs(self) -> Mapping[str, Need]:
        """Nothing: it sees no label."""
        return {}

    def pool_needs(self) -> Mapping[str, Need]:
        """What `fit` and `loss` read of each pool image."""
        raise NotImplementedError(f"{type(self).__name__} must define pool_needs()")

    def training_images(self, task: Task) -> Images:
        """The pool.

        Raises:
            ValueError: where there is none.
        """
        return task.require_pool(type(self).__name__).bind(self.pool_needs())

    def start_norms(self, backbone: Backbone) -> None:
        """Learn the image tower's norms, from where they are."""
        backbone.require("image.block.0")
        self.backbone = backbone
        self.tuned = TunedWeights(backbone, [name for name in norm_weights(backbone) if name.startswith("image.")])

    def parameter_groups(self, parameters: list[nn.Parameter]) -> list[Any]:
        """Biases do not decay."""
        biases = {id(p) for name, p in self.tuned.of("image").items() if name.endswith("bias")}
        free = [p for p in parameters if id(p) in biases]
        rest: dict[str, Any] = {"params": [p for p in parameters if id(p) not in biases]}
        return [rest, {"params": free, "weight_decay": 0.0}]


class PromptedStudent(PoolLearner):
    """Learned tokens, norms and linear head, ``self.head``, ``(C, D)``, for the labels that `taught` gives.

    The head reads the raw embedding: its norm and the head's stand in for the factor from cosine to logit.

    >>> import adaptkit as ak
    >>> from adaptkit.methods.unlabelled import PromptedStudent
    >>> class ZeroShotPupil(PromptedStudent):
    ...     "Learns what zero-shot says of the whole image."
    ...
    ...     schedule: ak.Schedule = ak.Schedule(steps=2)
    ...
    ...     def pool_needs(self):
    ...         return {"x": ak.Pooled(), "strong": ak.Pixels(views=1, augment="strong", fresh=True)}
    ...
    ...     def fit(self, task):
    ...         self.start(task, task.text.clone())
    ...         self.register_buffer("text", task.text)
    ...
    ...     def taught(self, batch):
    ...         return (batch.x @ self.text.T).argmax(1)
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.predict(ak.adapt(ZeroShotPupil(n=4), task), test).shape
    torch.Size([60, 5])
    """

    n: Size = 50  # learned tokens in the image tower
    smoothing: Share = 0.1  # of the labels

    if TYPE_CHECKING:
        prompts: nn.Parameter  # no options
        head: nn.Parameter

    def start(self, task: Task, head: Tensor) -> None:
        """Norms as they are, tokens at random, and a head, ``(C, D)``."""
        self.start_norms(task.backbone)
        width = task.backbone.width["image"]
        reach = math.sqrt(6 / (3 * PATCH**2 + width))
        self.prompts = nn.Parameter(torch.empty(self.n, width).uniform_(-reach, reach).to(head))  # (n, W)
        self.head = nn.Parameter(head)  # (C, D)

    def encode(self, pixels: Tensor) -> Tensor:
        """Raw embeddings by the tuned tower, ``(B, D)``: tokens enter behind the class token, without positions."""
        point = "image.prenorm" if "image.prenorm" in self.backbone.points else "image.tokens"

        def enter(_: Tensor, tokens: Tensor) -> Tensor:
            first = before_patches(tokens.shape[1])  # class token and registers, or nothing
            prompts = self.prompts.expand(len(tokens), -1, -1).to(tokens.dtype)
            return torch.cat([tokens[:, :first], prompts, tokens[:, first:]], 1)

        with self.backbone.taps({point: enter}):
            return self.tuned.encode_image(pixels)

    def forward(self, batch: Images) -> Tensor:
        """Logits, ``(B, C)``."""
        return self.encode(batch.pixels) @ self.head.T

    def taught(self, batch: Images) -> Tensor:
        """Labels of B pool images, ``(B,)``."""
        raise NotImplementedError(f"{type(self).__name__} must define taught(batch)")

    def loss(self, batch: Images) -> Tensor:
        """Cross-entropy on strong views, with smoothed labels."""
        logits = self.encode(batch.strong[:, 0]) @ self.head.T
        return F.cross_entropy(logits, self.taught(batch), label_smoothing=self.smoothing)


def pool_reads(method: Method) -> list[Need]:
    """Everything that a method and those below it read of an unlabelled image; nothing where they learn from none.

    >>> import adaptkit as ak
    >>> from adaptkit.methods.unlabelled import pool_reads
    >>> pool_reads(ak.method("mcm", base=ak.method("zlap-inductive"))) == [ak.Pooled()], pool_reads(ak.method("gda"))
    (True, [])
    """
    methods = [each for each in method.modules() if isinstance(each, Method)]
    return [need for each in methods for need in each.pool_needs().values()]


def sentence_rows(task: Task, written: Sequence[Sequence[str]] | None) -> list[Tensor]:
    """Unit-norm embeddings of each class's sentences, C tensors ``(R_c, D)``: what was written of it, and the task's.

    >>> import adaptkit as ak
    >>> from adaptkit.methods.unlabelled import sentence_rows
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> [len(rows) for rows in sentence_rows(task, [["a small one."]] * 5)]
    [2, 2, 2, 2, 2]
    """
    if written is None:
        return task.text_per_prompt
    new = unit(task.encode([s for own in written for s in own])).to(task.text)
    rows = new.split([len(own) for own in written])
    return [torch.cat(both) for both in zip(rows, task.text_per_prompt, strict=True)]
