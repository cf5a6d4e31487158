"""LaFTer: a linear head learned from sentences labels unlabelled images, and is tuned on them with the image tower.

Source: Mirza et al., LaFTer: Label-Free Tuning of Zero-shot Classifier using Language and Unlabeled Image Collections,
arXiv:2305.18287.
Deviations: float32; the last epoch is kept, where the release reports the best on the test set. The teacher sees the
frozen tower; the release's goes through the student's, whose norms are trained, and so moves: ``as_released=True``.
Lengths and rates are the release's scripts': 400 to 600 steps on sentences by dataset, here 500; constant rates. Strong
views end with a blur, as the release's do. Classes that it did not adapt to are answered by the mean embeddings of
their sentences, under the learned tokens and norms.
Interactions: without a `file` the head learns from the task's own sentences alone.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pixels, Pooled, Schedule, hookimpl, unit
from adaptkit.io.ranges import Steps, Weight
from adaptkit.methods.unlabelled import PromptedStudent, sentence_rows
from adaptkit.runs.plugins import pick


class LaFTer(PromptedStudent):
    """A head learned from sentences, tuned on a pool with the image tower."""

    exempt: ClassVar = {"beats_chance": "random tokens outnumber the toy's patches, and few steps tame none"}

    file: str = ""  # sentences by class, as the prompts `llm` read them, beside the task's own
    noise: Weight = 0.1  # standard deviation of what is added to embeddings of sentences, at every step
    text_steps: Steps = 500  # of AdamW, on all sentences at once
    text_lr: Weight = 5e-4
    as_released: bool = False  # the teacher shares the trained norms
    schedule: Schedule = Schedule(epochs=50, lr=5e-4, batch_size=50, weight_decay=0.01, decay="constant")

    def pool_needs(self):
        weak = {"weak": Pixels()} if self.as_released else {"x": Pooled()}
        return weak | {"strong": Pixels(views=1, augment="strong", fresh=True)}

    def fit(self, task):
        rows = self.sentences(task)
        labels = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(own) for own in rows]))
        width = rows[0].shape[1]
        head = torch.empty(len(rows), width).uniform_(-(width**-0.5), width**-0.5)  # as torch starts a linear map
        self.start(task, head.to(rows[0]))
        self.learn_text(torch.cat(rows), labels.to(rows[0].device))
        self.teacher = nn.Buffer(self.head.detach().clone())  # (C, D)

    def retarget(self, task):
        text = unit(torch.stack([own.mean(0) for own in self.sentences(task)]))
        self.head, self.teacher = nn.Parameter(text, requires_grad=False), nn.Buffer(text.clone())

    def sentences(self, task):
        """Embeddings of what is written of each class, C tensors ``(R_c, D)``."""
        return sentence_rows(task, pick("prompts", "llm")(task.classnames, None, file=self.file) if self.file else None)

    def learn_text(self, rows, labels):
        """Train the head on sentences, ``(R, D)`` and ``(R,)``."""
        optimizer = torch.optim.AdamW([self.head], self.text_lr, weight_decay=0.01)
        for _ in range(self.text_steps):
            logits = (rows + self.noise * torch.randn_like(rows)) @ self.head.T
            loss = F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
            (self.head.grad,) = torch.autograd.grad(loss, self.head)
            optimizer.step()
        self.head.grad = None

    @torch.no_grad()
    def taught(self, batch):
        return self.teacher_logits(batch).argmax(1)

    def teacher_logits(self, batch):
        """What the head that knows sentences alone makes of whole images, ``(B, C)``."""
        if not self.as_released:
            return batch.x @ self.teacher.T
        return unit(self.tuned.encode_image(batch.weak)) @ self.teacher.T


@hookimpl
def methods():
    return {"la-fter": LaFTer}
