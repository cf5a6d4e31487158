"""Two memories beside the class embeddings, of the test images seen so far and of the support, read by similarity.

Source: Zhang et al., Dual Memory Networks: A Versatile Adaptation Approach for Vision-Language Models,
arXiv:2403.17589; its training-free form.
Deviations: the released code chooses the weights of the two memories on the test set; ours are 1 unless validation
images choose them, from the release's grid, by one pass through them. The logits are the logarithm of the weighted sum
of the probabilities. We keep at least one view. The views of an image are drawn once and cached; on fine-grained
datasets the release mixes them by AugMix: ``augment: augmix``.
"""

import copy

import torch
from torch import nn

from adaptkit import Pooled, ZeroShot, hookimpl
from adaptkit.io.ranges import Share, Size, Views, Weight
from adaptkit.methods.class_cache import ClassCache
from adaptkit.methods.ops import class_sums, entropy, in_parts

WEIGHTS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


class DMN(ZeroShot):
    """Zero-shot plus two memories read by similarity, of test images so far and support."""

    scope = "stream"
    shots: bool = True  # whether the support, if there is any, enters both memories; False is the paper's DMN-ZS
    dynamic: Weight = 1.0  # weight of the probabilities from the images seen so far, beside 1 for the text's
    static: Weight = 1.0  # weight of those from the support
    beta: Weight = 5.5  # sharpness of the affinity
    capacity: Size = 50  # images held per class, those of lowest entropy, L
    keep: Share = 0.1  # share of the views, the most confident, that name the class
    views: Views = 128  # the plain image among them
    support_views: Views = 1  # of each support image, likewise, in the static memory; the dynamic one takes the plain
    augment: str = "wide-crop-flip"

    def needs(self):
        return {"views": Pooled(views=self.views, plain_first=True, augment=self.augment)}

    def support_needs(self):
        need = Pooled(views=self.support_views, plain_first=True, augment=self.augment)
        return {"views": need} if self.shots else {}

    def grid(self):
        return {"dynamic": WEIGHTS} | ({"static": WEIGHTS} if self.shots else {})

    def fit(self, task):
        super().fit(task)
        views = task.support.views if self.shots and len(task.support) else self.text[:0, None]  # (S, V, D)
        self.support = nn.Buffer(views)
        self.labels = nn.Buffer(task.support.labels[: len(views)])
        self.memory = ClassCache(self.text, self.capacity)

    def forward(self, batch):
        return self.mixed(self.log_probabilities(batch.views))

    def replay(self, stream):
        return self(stream)

    def mixed(self, log_p):
        """Weighted sum of the probabilities, ``(..., 2 or 3, C)`` to ``(..., C)``, logarithms both."""
        weights = log_p.new_tensor([1.0, self.dynamic, self.static])[: log_p.shape[-2]]
        return (log_p + weights.log()[:, None]).logsumexp(-2)

    def log_probabilities(self, views):
        """By text, by the dynamic and, with a support, by the static memory, ``(B, 2 or 3, C)``, once images are in."""
        return torch.cat([self.ask(part) for part in views.split(256)])  # so that their affinities fit in memory

    def ask(self, views):
        logits, p = in_parts(self.named_by, views)
        x = views[:, 0]
        seen = [(held, held.last > 0) for held in self.memory.admit(p.argmax(-1), -torch.xlogy(p, p).sum(-1), x)]
        met = torch.cat([held.met(len(x))[taken] for held, taken in seen])  # (M, B)
        keys = torch.cat([*(held.keys[taken] for held, taken in seen), self.support[:, 0]])
        label = torch.cat([*(held.label[taken] for held, taken in seen), self.labels])
        answers = [logits, self.answer(x, keys, label, met)]
        if len(self.support):
            labels = self.labels.repeat_interleave(self.support.shape[1])
            answers.append(self.answer(x, self.support.flatten(0, 1), labels, met[:0]))
        return torch.stack(answers, 1).log_softmax(-1)

    def named_by(self, views):
        """Logits of the plain images, and mean probabilities of the confident views, ``(B, C)``."""
        logits = self.zero_shot(views)  # (B, V, C)
        kept = entropy(logits).argsort(dim=1, stable=True)[:, : max(1, int(self.keep * views.shape[1])), None]
        return logits[:, 0], logits.take_along_dim(kept, 1).softmax(-1).mean(1)

    def answer(self, x, keys, label, met):
        """Logits of queries by the prototypes of a memory, ``(B, C)``.

        A prototype is the sum of a class's entries, weighted by their affinity to the query. It is never formed: its
        length follows from the products of the entries. `met` says of the first entries which queries met them.
        """
        classes = torch.arange(len(self.text)).to(label)
        keys, label = torch.cat([keys, self.text]), torch.cat([label, classes])  # each class's text is an entry
        cosine = keys @ x.T  # (M, B)
        weight = (self.beta * (cosine - 1)).exp()
        weight[: len(met)] *= met
        dot = class_sums(weight * cosine, label, len(self.text))  # (C, B)
        norm2, order, count = torch.empty_like(dot), label.argsort(), label.bincount()
        for size in count.unique().tolist():  # classes with as many entries, at once
            of = count == size
            rows = order[(count.cumsum(0) - size)[of, None] + classes.new_tensor(range(size))]  # (N, size)
            gram = keys[rows] @ keys[rows].mT
            norm2[of] = (weight[rows] * (gram @ weight[rows])).sum(1)
        return (self.backbone.logit_scale * dot / norm2.sqrt() + self.backbone.logit_bias).T

    def sweep(self, val):
        runner, grid = copy.deepcopy(self), self.grid()
        log_p = runner.log_probabilities(val.views)  # (N, 2 or 3, C)
        for dynamic in grid["dynamic"]:
            for static in grid.get("static", (runner.static,)):
                runner.set({"dynamic": dynamic, "static": static})
                yield runner.mixed(log_p)


@hookimpl
def methods():
    return {"dmn": DMN}
