"""NoLA: a second tower, aligned with the surest zero-shot labels, labels the images that the first one is tuned on.

Source: Imam et al., CLIP meets DINO for Tuning Zero-Shot Classifier using Unlabeled Image Collections,
arXiv:2411.19346.
Deviations: float32; the last epoch is kept, where the release keeps the best on labelled validation images. Sixteen
tokens and constant rates are the release's. It asks for the surest images of those classes alone that occur among the
true labels, which are not read here. Its strong views also have a perspective and a second change of colours; ours are
grey at times. Classes that it did not adapt to are answered by the mean embeddings of their sentences, under the
learned tokens and norms.
Interactions: without a `file` class embeddings are those of the task's own sentences; without `second` the task's own
image tower is both.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pixels, Pooled, Schedule, hookimpl, unit
from adaptkit.io.ranges import Count, Size
from adaptkit.methods.unlabelled import PromptedStudent, sentence_rows
from adaptkit.runs.plugins import pick


class NoLA(PromptedStudent):
    """The image tower, tuned on what a second tower says of a pool."""

    exempt: ClassVar = {"beats_chance": "random tokens outnumber the toy's patches, and few steps tame none"}

    file: str = ""  # sentences by class, as the prompts `llm` read them, beside the task's own
    second: str = ""  # the second tower, the paper's being "hf:facebook/dino-vitb16"; without, the task's own
    n: Size = 16  # learned tokens in the image tower
    k: Count = 0  # surest images of a class; 0 is a fifth of what it would have of equal classes, 16 at least
    hidden: Size = 256  # of the network on the second tower
    align: Schedule = Schedule(epochs=50, lr=1e-3, batch_size=32, optimizer="adam", decay="constant")  # of its training
    schedule: Schedule = Schedule(epochs=50, lr=4e-3, batch_size=512, weight_decay=0.01, decay="constant")

    def pool_needs(self):
        stored = {"x": Pooled(), "z": Pooled(backbone=self.second, unit=False)}
        return stored | {"strong": Pixels(views=1, augment="strong", fresh=True)}

    def fit(self, task):
        self.start(task, self.class_text(task))
        pool = self.training_images(task)
        zero_shot = task.backbone.logits(pool.x, self.head.detach()).softmax(1)  # (N, C)
        rows, labels = surest(zero_shot, self.k or max(16, math.floor(0.2 * len(pool) / len(task.classnames))))
        z = pool[rows].z  # (S, W')
        inner, outer = nn.Linear(z.shape[1], self.hidden), nn.Linear(self.hidden, len(task.classnames))
        self.aligner = nn.Sequential(inner, nn.ReLU(), outer).to(z.device)
        self.learn_alignment(z, labels)

    def retarget(self, task):
        self.head = nn.Parameter(self.class_text(task), requires_grad=False)

    def class_text(self, task):
        """The mean of all of a class's sentences, ``(C, D)``."""
        written = pick("prompts", "llm")(task.classnames, None, file=self.file) if self.file else None
        return unit(torch.stack([own.mean(0) for own in sentence_rows(task, written)]))

    def learn_alignment(self, z, labels):
        """Train the network on embeddings by the second tower, ``(S, W')``, with labels, ``(S,)``; then freeze it."""
        optimizer = self.align.make(self.aligner.requires_grad_(True).parameters())
        size = self.align.batch_size
        per_epoch = math.ceil(len(z) / size)
        total = self.align.length(per_epoch, shots=1)
        for step in range(total):
            if step % per_epoch == 0:
                order = torch.randperm(len(z)).to(z.device)
            rows = order[step % per_epoch * size :][:size]
            optimizer.param_groups[0]["lr"] = self.align.rate(step, per_epoch, total)
            optimizer.zero_grad()
            F.cross_entropy(self.aligner(z[rows]), labels[rows]).backward()
            optimizer.step()
        optimizer.zero_grad()
        self.aligner.requires_grad_(False)

    @torch.no_grad()
    def taught(self, batch):
        return self.aligner(batch.z).argmax(1)


def surest(p, k):
    """Rows of the `k` images that are likeliest to be of each class, and the classes, of probabilities ``(N, C)``.

    They are among those whose likeliest class it is; of a class that is none's, whose second, or else whose third. An
    image that two classes take is the first's.
    """
    places, taken = p.topk(min(3, p.shape[1]), 1).indices, {}  # (N, 3)
    for c in range(p.shape[1]):
        own = next((rows for place in places.T if len(rows := (place == c).nonzero()[:, 0])), places[:0, 0])
        for row in own[p[own, c].argsort(descending=True, stable=True)[:k]].tolist():
            taken.setdefault(row, c)
    return torch.tensor([*taken]), torch.tensor([*taken.values()]).to(p.device)


@hookimpl
def methods():
    return {"nola": NoLA}
