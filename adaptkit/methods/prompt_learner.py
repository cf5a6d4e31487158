"""What methods share that learn words in front of class names on views of single images, as in Dassl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptkit.features.needs import Need, Pooled
from adaptkit.io.ranges import Size, Views, Weight
from adaptkit.methods.method import Method
from adaptkit.methods.schedule import DASSL, Schedule
from adaptkit.methods.task import Task
from adaptkit.towers.prompting import Prompts


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
