"""What methods share that refine the image embedding before it meets the zero-shot head."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from adaptkit.features.items import Images
from adaptkit.features.needs import Need, Pooled
from adaptkit.io.ranges import Views
from adaptkit.methods.task import Task
from adaptkit.methods.zero_shot import ZeroShot
from adaptkit.towers.backbone import unit


class ImageAdapter(ZeroShot):
    """Zero-shot on ``adapted(x)`` in place of the raw embedding x. What is learned knows no class."""

    views: Views = 10  # random views per support image, to train on
    augment: str = "wide-crop-flip"  # how they are drawn

    def needs(self) -> Mapping[str, Need]:
        """The raw embedding, not of unit norm."""
        return {"x": Pooled(unit=False)}

    def support_needs(self) -> Mapping[str, Need]:
        """Raw embeddings of random views."""
        return {"views": Pooled(unit=False, views=self.views, augment=self.augment)}

    def retarget(self, task: Task) -> None:
        """Only the class embeddings are other ones."""
        ZeroShot.fit(self, task)

    def adapted(self, x: Tensor) -> Tensor:
        """Raw embeddings to refined ones, ``(B, D)`` both; of any norm."""
        raise NotImplementedError(f"{type(self).__name__} must define adapted(x)")

    def forward(self, batch: Images) -> Tensor:
        """Logits, ``(B, C)``."""
        return self.logits(batch.x)

    def logits(self, x: Tensor) -> Tensor:
        """``(B, D)`` raw embeddings to ``(B, C)`` logits."""
        return self.zero_shot(unit(self.adapted(x)))
