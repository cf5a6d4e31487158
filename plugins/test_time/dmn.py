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

from adaptkit import Pooled, ZeroShot, hookimpl, unit
from adaptkit.ops import ClassCache, class_sums, entropy

WEIGHTS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


class DMN(ZeroShot):
    """An image enters the memory of the class that its confident views name, and then asks all memories."""

    scope = "stream"

    shots: bool = True  # whether the support, if there is any, enters both memories; False is the paper's DMN-ZS
    dynamic: float = 1.0  # weight of the probabilities from the images seen so far, beside 1 for the text's
    static: float = 1.0  # weight of those from the support
    beta: float = 5.5  # sharpness of the affinity
    capacity: int = 50  # images held per class, those of lowest entropy, L
    keep: float = 0.1  # share of the views, the most confident, that name the class
    views: int = 128  # the plain image among them
    support_views: int = 1  # of each support image, likewise, in the static memory; the dynamic one takes the plain
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
        return self.mixed(self.log_probabilities(batch.views[0]))[None]

    def mixed(self, log_p):
        """Weighted sum of the probabilities, ``(..., 2 or 3, C)`` to ``(..., C)``, logarithms both."""
        weights = log_p.new_tensor([1.0, self.dynamic, self.static])[: log_p.shape[-2]]
        return (log_p + weights.log()[:, None]).logsumexp(-2)

    def log_probabilities(self, views):
        """By text, by the dynamic and, with a support, by the static memory, ``(2 or 3, C)``, once the image is in."""
        logits = self.zero_shot(views)  # (V, C)
        kept = entropy(logits).argsort(stable=True)[: max(1, int(self.keep * len(views)))]
        p = logits[kept].softmax(-1).mean(0)
        x = views[0]
        self.memory.admit(p.argmax(), -torch.xlogy(p, p).sum(), x)
        seen = torch.einsum("ck,ckd->cd", self.memory.affinity(x, self.beta), self.memory.keys)
        answers = [logits[0], self.answer(x, seen + self.recall(x, self.support[:, :1]))]
        if len(self.support):
            answers.append(self.answer(x, self.recall(x, self.support)))
        return torch.stack(answers).log_softmax(-1)

    def recall(self, x, support):
        """Support views ``(S, V, D)`` weighted by their affinity to the query and summed by class, ``(C, D)``."""
        weight = (self.beta * (support @ x - 1)).exp()  # (S, V)
        return class_sums((weight[:, None] @ support)[:, 0], self.labels, len(self.text))

    def answer(self, x, sums):
        """Logits of the query by a memory's prototypes; each class's text is always one of its entries."""
        weight = (self.beta * (self.text @ x - 1)).exp()  # (C,)
        return self.backbone.logits(x[None], unit(sums + weight[:, None] * self.text))[0]

    def sweep(self, val):
        runner, grid = copy.deepcopy(self), self.grid()
        log_p = torch.stack([runner.log_probabilities(row) for row in val.views])  # (N, 2 or 3, C)
        for dynamic in grid["dynamic"]:
            for static in grid.get("static", (runner.static,)):
                runner.set({"dynamic": dynamic, "static": static})
                yield runner.mixed(log_p)


@hookimpl
def methods():
    return {"dmn": DMN}
