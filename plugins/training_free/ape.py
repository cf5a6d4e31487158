"""APE: a cache over the channels that tell classes apart, whose entries weigh more the worse the text explains them.

Source: Zhu et al., Not All Features Matter: Enhancing Few-shot CLIP with Adaptive Prior Refinement, arXiv:2304.01195.
Deviations: ``ape``'s default search is coarser; the release's is ``search_steps: [200, 20, 20]``, on ImageNet [200, 20,
5] with the validation images taken from the test set. The authors choose channels, weights, first values and ranges for
each dataset; the defaults are ImageNet's. The criterion is the closed form of their loops over all pairs, and takes any
number of shots; ``as_released=True`` adds pair by pair, as they do: their rounding, and minutes to hours of time.
``ape-t`` does not run as released (it asks for two numbers of channels that its configurations do not have equal); here
it sees one of the stored views of an image at each step instead of a fresh one.
Alpha is for a logit scale of 100 and is rescaled to the backbone's. The paper's class embeddings are of templates and
of a language model's sentences. The votes of a class add up, so with unequal shots large classes gain.
"""

import itertools

import torch
from torch import nn

from adaptkit import Pooled, Schedule, ZeroShot, accuracy, hookimpl, unit
from adaptkit.io.ranges import Positive, Size, Tries, Views, Weight
from adaptkit.methods.kernels import kernel_sums, row_blocks
from adaptkit.methods.ops import class_sums, row_variance, steps_from
from adaptkit.methods.search import Linear


class APE(ZeroShot):
    """Zero-shot plus votes of support images, on the channels that tell classes apart."""

    alpha: Weight = 2.0  # weight of the cache, for a logit scale of 100
    beta: Weight = 1.0  # sharpness of its similarity
    gamma: Weight = 0.1  # how much more weigh entries that the text explains badly
    channels: Size = 500  # kept of the embedding's; all, if it has fewer
    weights: tuple[Weight, Weight] = (0.7, 0.3)  # in the criterion: of likeness between classes, of the text's variance
    search_scale: tuple[Positive, ...] = (7, 7, 0.5)  # upper ends of beta, alpha and gamma, never reached
    search_steps: tuple[Tries, ...] = (40, 10, 5)  # values of each
    views: Views = 10  # random views per support image
    augment: str = "crop-flip"
    as_released: bool = False

    of_text = False  # whether the criterion looks at the text alone

    def support_needs(self):
        return {"views": Pooled(views=self.views, augment=self.augment, unit=False)}

    def grid(self):
        values = map(steps_from, (0.1, 0.1, 0.0), self.search_scale, self.search_steps)
        return dict(zip(("beta", "alpha", "gamma"), values, strict=False))

    def fit(self, task):
        super().fit(task)
        keys, labels = unit(task.support.views.mean(1)), task.support.labels  # (S, D)
        members, owners = self.text, torch.arange(len(self.text)).to(labels)
        if not self.of_text:
            members, owners = torch.cat([members, keys]), torch.cat([owners, labels])
        alike = (pair_by_pair if self.as_released else likeness)(members, owners)
        score = self.weights[1] * row_variance(self.text) - self.weights[0] * alike
        self.chosen = nn.Buffer(score.topk(min(self.channels, len(score))).indices)  # (Q,)
        self.labels, self.keys = nn.Buffer(labels), nn.Buffer(self.reduce(keys))  # (S,), (S, Q)
        guess = (self.keys @ self.reduce(self.text).T).softmax(-1).gather(1, labels[:, None])[:, 0]  # of bare cosines
        self.divergence = nn.Buffer(((1 + 1e-6) / (guess + 1e-6)).log2())  # of the one-hot label, (S,), bits

    def reduce(self, x):
        return unit(x[:, self.chosen])

    def forward(self, batch):
        return self.logits(batch.x)

    def logits(self, x):
        """``(B, D)`` unit-norm embeddings to ``(B, C)``."""
        zero_shot, affinity = self.read(x)
        return zero_shot + self.alpha * self.votes(affinity)

    def read(self, x):
        """Logits by the text, ``(B, C)``, and similarity to the cache, ``(B, S)``."""
        return self.zero_shot(x), self.reduce(x) @ self.keys.T

    def importance(self, gamma):
        return (gamma * self.divergence).exp()  # (S,)

    def votes(self, affinity):
        """Similarity to the cache, ``(B, S)``, weighted and summed over each class, in units of the logits."""
        entries = self.backbone.logit_scale / 100 * (self.beta * (affinity - 1)).exp() * self.importance(self.gamma)
        return class_sums(entries.T, self.labels, len(self.text)).T  # (B, C)

    def sweep(self, val):
        grid, classes, scale = self.grid(), len(self.text), self.backbone.logit_scale / 100
        weights = torch.stack([self.importance(gamma) for gamma in grid.get("gamma", [self.gamma])], 1)  # (S, G)
        for x in row_blocks(val.x, classes):
            zero_shot, affinity = self.read(x)
            for votes in kernel_sums(affinity.T, self.labels, classes, grid["beta"], scale, weights):
                yield Linear(zero_shot, {"alpha": votes})


class APET(APE):
    """`APE` on all channels, with trained residuals of class embeddings and support."""

    gamma: Weight = 0.0  # the weights of the entries start as those of `APE`: here, at 1
    weights: tuple[Weight, Weight] = (0.2, 0.8)  # in the criterion, of the channels that the residual changes
    search_scale: tuple[Positive, ...] = (7, 7)  # upper ends of beta and alpha, never reached
    search_steps: tuple[Tries, ...] = (200, 20)  # values of each
    schedule: Schedule = Schedule(
        epochs=20, lr=1e-4, batch_size=256, optimizer="adamw", weight_decay=0.1, eps=1e-3, decay="cosine"
    )

    of_text = True

    def fit(self, task):
        super().fit(task)
        self.full = nn.Buffer(unit(task.support.views.mean(1)))  # (S, D)
        self.residual = nn.Parameter(torch.zeros_like(self.text[:, self.chosen]))  # (C, Q)
        self.learned = nn.Parameter(super().importance(self.gamma)[:, None])  # (S, 1)
        self.val = task.val

    def callbacks(self):
        from adaptkit.methods.train import KeepBest

        return [] if self.val is None else [KeepBest(self, lambda: accuracy(self, self.val))]

    def read(self, x):
        residual = torch.zeros_like(self.text).index_copy(1, self.chosen, self.residual)  # (C, D)
        return self.backbone.logits(x, self.text + residual), x @ (self.full + residual[self.labels]).T

    def importance(self, gamma):
        return self.learned[:, 0]


def likeness(members, labels):
    """Mean product of two members ``(M, D)`` of different classes, over all such pairs, in each channel, ``(D,)``."""
    counts = labels.bincount()
    sums = class_sums(members.double(), labels, len(counts))  # (C, D)
    pairs = len(labels) ** 2 - counts.square().sum()
    return ((sums.sum(0).square() - sums.square().sum(0)) / pairs).to(members)


def pair_by_pair(members, labels):
    """`likeness`, one product after another."""
    total, count = torch.zeros_like(members[0]), 0
    for one, other in itertools.permutations([members[labels == c] for c in labels.unique()], 2):
        for product in (one[:, None] * other).flatten(0, 1):
            total, count = total + product, count + 1
    return total / count


@hookimpl
def methods():
    return {"ape": APE, "ape-t": APET}
