"""The head that most methods start from.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020.
Deviations: none known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from adaptkit.features.items import Images
from adaptkit.features.needs import Need
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task


class ZeroShot(Method):
    """Scaled cosine similarity between an image and each class's mean prompt embedding.

    Of several labels an image it ranks images under each label; its logits have no zero that tells labels from others.

    A method that starts from the text extends it: ``self.text``, ``(C, D)``, is there after ``super().fit(task)``.

    >>> import adaptkit as ak
    >>> class Sharper(ak.ZeroShot):
    ...     "Zero-shot logits, doubled."
    ...
    ...     def forward(self, batch):
    ...         return 2 * self.zero_shot(batch.x)  # (B, C)
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.predict(ak.adapt(Sharper(), task), test).shape
    torch.Size([60, 5])
    """

    answers: ClassVar[tuple[str, ...]] = ("classification", "multi-label")

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 (passed on)
        """Who adds to the head answers what a method does unless it says more: several labels are more than one."""
        if "answers" not in vars(cls) and ZeroShot in cls.__bases__:
            cls.answers = Method.answers
        super().__init_subclass__(**kwargs)

    def support_needs(self) -> Mapping[str, Need]:
        """Nothing: it learns from no image."""
        return {}

    def fit(self, task: Task) -> None:
        """Keep the class embeddings."""
        self.backbone = task.backbone
        self.register_buffer("text", task.text.clone())  # (C, D)

    def forward(self, batch: Images) -> Tensor:
        """Zero-shot logits, ``(B, C)``."""
        return self.zero_shot(batch.x)

    def zero_shot(self, x: Tensor) -> Tensor:
        """``(B, D)`` unit-norm image embeddings to ``(B, C)`` logits."""
        return self.backbone.logits(x, self.text)  # type: ignore[arg-type]
