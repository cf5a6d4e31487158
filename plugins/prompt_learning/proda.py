"""Many contexts, whose class embeddings are draws of one Gaussian: its mean answers, its spread makes margins.

A quarter of the contexts have the class name in front, a quarter in the middle, the others at the end. The loss is an
upper bound of the expected cross-entropy under the Gaussian, on a few contexts a step, and keeps contexts apart.

Source: Lu et al., Prompt Distribution Learning, arXiv:2205.03340.
Deviations: the authors' code is not public and the paper could not be read again; what stands for a release here is a
third party's port, whose rate, batch and epochs are taken, too. As there, covariances are of each channel alone, and
embeddings are of unit norm, but their mean is not. It divides a covariance by one more than the contexts, here by the
contexts: ``as_released``. Random views come from a cache of ten unless ``fresh``; the authors draw a new one at every
step. Float32 instead of float16.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import nn

from adaptkit import Prompts, Schedule, hookimpl, unit
from adaptkit.io.ranges import Size, Weight
from adaptkit.methods.ops import as_queries
from adaptkit.methods.prompt_learner import PromptLearner
from adaptkit.methods.schedule import DASSL


class ProDA(PromptLearner):
    """Many trained contexts, whose class embeddings are a Gaussian; its mean answers."""

    n: Size = 16  # context words; ignored with `init`
    contexts: Size = 32  # K
    at_once: Size = 4  # contexts of each step
    weight: Weight = 0.1  # lambda, of how alike the contexts are
    as_released: bool = False  # divide covariances by one more than the contexts
    schedule: Schedule = replace(DASSL, epochs=100, lr=1e-3, batch_size=4)

    exempt: ClassVar = {"beats_chance": "in sixty steps each of 32 contexts takes eight small ones, away from noise"}

    def fit(self, task):
        self.backbone, self.left, quarter = task.backbone, [], self.contexts // 4
        words = {"n": len(self.init.split()) or self.n, "init": self.init}
        places = ("front",) * quarter + ("middle",) * quarter + ("end",) * (self.contexts - 2 * quarter)
        self.kinds = torch.tensor([("front", "middle", "end").index(place) for place in places])  # (K,)
        self.prompts = [
            Prompts(task.backbone, task.classnames, position=p, **words) for p in ("front", "middle", "end")
        ]
        self.bare = Prompts(task.backbone, [""], **words)  # without a class
        starts = [self.prompts[-1].start(self.std) for _ in places]
        self.context = nn.Parameter(torch.stack(starts))  # (K, n, W)

    def retarget(self, task):
        self.prompts = [prompts.of(task.classnames) for prompts in self.prompts]

    def text(self, rows):
        """Class embeddings under some contexts, ``(k, C, D)``, unit-norm, by the place of the name."""
        kinds = self.kinds[rows]
        own = [(prompts, rows[kinds == kind]) for kind, prompts in enumerate(self.prompts)]
        return torch.cat([unit(prompts.encode_each(self.context[some])) for prompts, some in own if len(some)])

    def forward(self, batch):
        return self.backbone.logits(batch.x, self.text(torch.arange(self.contexts)).mean(0))

    def loss(self, batch):
        x, text = as_queries(batch, self.needs()).x, self.text(self.drawn())
        return self.evaluation.loss(self.bound(x, text, batch.labels), batch.labels) + self.weight * self.alike()

    def drawn(self):
        """The contexts of this step: those that a permutation of all has next."""
        if self.at_once >= self.contexts:
            return torch.arange(self.contexts)
        if len(self.left) < self.at_once:
            self.left = torch.randperm(self.contexts).tolist()
        rows, self.left = self.left[: self.at_once], self.left[self.at_once :]
        return torch.tensor(rows)

    def bound(self, x, text, labels):
        """Logits with half the variance of each class's margin to the true one on top, ``(B, C)``."""
        around, square = text - text.mean(0), x.square()  # (k, C, D), (B, D)
        true = around[:, labels]  # (k, B, D)
        spread = torch.einsum("bd,kcd->bc", square, around.square())  # x' S_cc x, but for the divisor
        own = torch.einsum("bd,kbd->b", square, true.square())  # x' S_yy x
        both = torch.einsum("kbd,kcd->bc", square * true, around)  # x' S_yc x
        variance = (own[:, None] + spread - 2 * both) / (len(text) + (1 if self.as_released else 0))
        return self.backbone.logits(x, text.mean(0)) + self.backbone.logit_scale**2 / 2 * variance

    def alike(self):
        """Mean absolute cosine between contexts without a class, of all pairs, a scalar."""
        x = unit(self.bare.encode_each(self.context)[:, 0])  # (K, D)
        pairs = self.contexts * (self.contexts - 1)
        return (x @ x.T).abs().fill_diagonal_(0).sum() / max(1, pairs)


@hookimpl
def methods():
    return {"proda": ProDA}
