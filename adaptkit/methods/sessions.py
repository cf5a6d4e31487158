"""What methods share that are trained on one group of classes after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from adaptkit.methods.method import Method
from adaptkit.methods.task import Task


class Sessions(Method):
    """Trained on the classes of one task after another; answers among all classes of the tasks so far.

    Call `begin` in `fit`, and `among_new` in `loss`. It stands before the class that says how to answer for other
    classes, whose `retarget` it calls for every further task.

    >>> import adaptkit as ak
    >>> from adaptkit.methods.sessions import Sessions
    >>> from adaptkit.methods.tuned_weights import TowerTuner, norm_weights
    >>> class GrowingNorms(Sessions, TowerTuner):
    ...     "The norms of both towers, trained on task after task."
    ...
    ...     schedule: ak.Schedule = ak.Schedule(steps=2)
    ...
    ...     def trained(self, backbone):
    ...         return norm_weights(backbone)
    ...
    ...     def fit(self, task):
    ...         super().fit(task)
    ...         self.begin(task)
    ...
    ...     def loss(self, batch):
    ...         logits = self.backbone.logits(self.images(batch.views[:, 0]), self.text())
    ...         return self.among_new(logits, batch.labels)
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.predict(ak.adapt(GrowingNorms(), task), test[:4]).shape
    torch.Size([4, 5])
    """

    if TYPE_CHECKING:
        before: int  # classes of the tasks before this one
        now: int  # classes of all tasks so far

    def begin(self, task: Task) -> None:
        """Meet the first task."""
        self.before, self.now = 0, len(task.classnames)

    def extend(self, task: Task) -> None:
        """Meet the next task.

        Raises:
            ValueError: when it has no new classes, or images of one that came before.
        """
        if len(task.classnames) <= self.now:
            raise ValueError(f"a task must have classes beyond the {self.now} so far; got {len(task.classnames)}")
        labels = task.support.labels
        if labels is not None and labels.dim() == 1 and len(known := labels[labels < self.now]):
            name = task.classnames[int(known[0])]
            raise ValueError(f"a task must have images of its new classes alone; got {name!r}; leave them out")
        self.retarget(task)
        self.before, self.now = self.now, len(task.classnames)

    def among_new(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy among this task's classes alone, of ``(B, C)`` logits of all, a scalar."""
        return self.evaluation.loss(logits[:, self.before :], labels - self.before)
