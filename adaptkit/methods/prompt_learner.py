"""What methods share that learn words in front of class names on views of single images, as in Dassl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adaptkit.features.items import Images
from adaptkit.features.needs import Need, Pooled
from adaptkit.io.ranges import Size, Views, Weight
from adaptkit.methods.method import Method
from adaptkit.methods.ops import as_queries
from adaptkit.methods.schedule import DASSL, Schedule
from adaptkit.methods.spread import mean_over_images
from adaptkit.methods.task import Task
from adaptkit.towers.backbone import Backbone, unit
from adaptkit.towers.prompting import Position, Prompts


class PromptLearner(Method):
    """Words around class names, ``self.prompts``, that `fit` starts and training learns; images stay embeddings."""

    n: Size = 16  # context words
    init: str = ""  # words to start from, e.g. "a photo of a"; without them the start is random
    std: Weight = 0.02  # of the random start
    views: Views = 10  # cached random views of each support image; one is drawn at every step
    fresh: bool = False  # draw views anew instead
    schedule: Schedule = DASSL

    tunable = ("context",)

    if TYPE_CHECKING:
        prompts: Prompts  # no option

    def support_needs(self) -> Mapping[str, Need]:
        """Random views of each support image."""
        return {"views": Pooled(views=1 if self.fresh else self.views, augment="wide-crop-flip", fresh=self.fresh)}

    def retarget(self, task: Task) -> None:
        """The same words around the names of other classes."""
        self.prompts = self.prompts.of(task.classnames)


class ContextLearner(PromptLearner):
    """One learned context for all images, or one for each class, and what a loss adds to the cross-entropy.

    `fit` makes ``self.prompts`` and ``self.context``, ``(n, W)`` or ``(C, n, W)``. A subclass gives the class
    embeddings of `text`, or the `penalty` on them; both are computed once a step.

    >>> import adaptkit as ak
    >>> from adaptkit.methods.prompt_learner import ContextLearner
    >>> class Centred(ContextLearner):
    ...     "A context whose class embeddings must not crowd."
    ...
    ...     def penalty(self, text):
    ...         return text.mean(0).norm()
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> centred = ak.adapt(Centred(n=4, schedule=ak.Schedule(steps=2)), task)
    >>> ak.predict(centred, test).shape
    torch.Size([60, 5])
    """

    n: Size = 16  # context words; ignored with `init`
    position: Position = "end"  # of the class name
    per_class: bool = False  # a context for each class

    if TYPE_CHECKING:
        backbone: Backbone
        context: nn.Parameter

    def fit(self, task: Task) -> None:
        """Start the context."""
        self.backbone = task.backbone
        n = len(self.init.split()) or self.n
        self.prompts = Prompts(task.backbone, task.classnames, n=n, init=self.init, position=self.position)
        self.learn_from([self.prompts.start(self.std) for _ in task.classnames])

    def learn_from(self, contexts: Sequence[Tensor]) -> None:
        """Let the context start from C of them, ``(n, W)`` each, or from the first where all classes share it."""
        self.context = nn.Parameter(torch.stack([*contexts]) if self.per_class else contexts[0])

    def retarget(self, task: Task) -> None:
        """The same words around the names of other classes.

        Raises:
            ValueError: when each class has words of its own.
        """
        if self.per_class:
            raise ValueError("per_class must be false where a context serves other classes; got true")
        super().retarget(task)

    def text(self) -> Tensor:
        """Class embeddings under the context, ``(C, D)``, unit-norm."""
        return unit(self.prompts.encode(self.context))

    def penalty(self, text: Tensor) -> Tensor | None:
        """What the loss adds to the cross-entropy, of class embeddings ``(C, D)``, in nats; ``None`` for nothing."""
        return None

    def forward(self, batch: Images) -> Tensor:
        """Cosines to the class embeddings as logits, ``(B, C)``."""
        return self.backbone.logits(batch.x, self.text())

    @mean_over_images
    def loss(self, batch: Images) -> Tensor:
        """Cross-entropy of one view of each image, and the penalty, a scalar."""
        text = self.text()
        logits = self.backbone.logits(as_queries(batch, self.needs()).x, text)
        loss = self.evaluation.loss(logits, batch.targets)  # type: ignore[arg-type]
        extra = self.penalty(text)
        return loss if extra is None else loss + extra


class AnchoredLearner(ContextLearner):
    """A `ContextLearner` that looks to ``self.frozen``, ``(C, D)``: what the task's own sentences say of each class.

    >>> import adaptkit as ak
    >>> from adaptkit.methods.prompt_learner import AnchoredLearner, distance
    >>> class Near(AnchoredLearner):
    ...     "A context whose class embeddings stay near hand-written ones."
    ...
    ...     def penalty(self, text):
    ...         return distance(text, self.frozen)
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.adapt(Near(n=4, schedule=ak.Schedule(steps=2)), task).frozen.shape
    torch.Size([5, 16])
    """

    if TYPE_CHECKING:
        frozen: Tensor

    def fit(self, task: Task) -> None:
        """Start the context, and keep the frozen class embeddings."""
        super().fit(task)
        self.register_buffer("frozen", task.text)  # (C, D)

    def retarget(self, task: Task) -> None:
        """The same words around the names of other classes, and what the task's sentences say of these."""
        super().retarget(task)
        self.register_buffer("frozen", task.text)


def around(task: Task) -> tuple[str, str]:
    """What stands before and after the name in the classes' first sentences; where they differ, "" and a full stop."""
    found = set()
    for name, sentences in zip(task.classnames, task.prompts, strict=True):
        before, own, after = sentences[0].partition(name.replace("_", " "))
        found.add((before.strip(), after) if own else ("", "."))
    return found.pop() if len(found) == 1 else ("", ".")


def distance(text: Tensor, frozen: Tensor) -> Tensor:
    """Mean squared distance between learned and frozen class embeddings, ``(C, D)``: KgCoOp's knowledge, a scalar.

    Of unit-norm embeddings, it is twice one minus their mean cosine.

    >>> import torch, adaptkit as ak
    >>> from adaptkit.methods.prompt_learner import distance
    >>> distance(torch.eye(2), torch.eye(2).flip(0))
    tensor(2.)
    """
    return (text - frozen).square().sum(-1).mean()
