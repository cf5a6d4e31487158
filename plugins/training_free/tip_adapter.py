"""Tip-Adapter: support images vote for their class by similarity, which is added to the zero-shot logits.

Source: Zhang et al., Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification, arXiv:2207.09519.
Deviations: ``tip-adapter`` none known; on ImageNet the authors' script searches alpha and beta on the test set, which
cannot happen here. ``tip-adapter-f`` sees one of the stored views of an image at each step instead of a fresh one, and
keeps the last epoch; theirs keeps the epoch that does best on the test set.
Alpha is for a logit scale of 100 and is rescaled to the backbone's. The votes of a class add up, so with unequal shots
large classes gain. The authors give each dataset its own `search_scale` and first alpha; the defaults are ImageNet's.
"""

from torch import nn

from adaptkit import Pooled, Schedule, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Positive, Tries, Views, Weight
from adaptkit.methods.kernels import kernel_sums, row_blocks
from adaptkit.methods.ops import class_sums
from adaptkit.methods.search import Linear


class TipAdapter(ZeroShot):
    """Zero-shot plus votes of the support images for their class, by similarity.

    A cache of support images: keys are embeddings averaged over views, values are labels. No training.
    """

    alpha: Weight = 1.17  # weight of the cache, for a logit scale of 100
    beta: Weight = 1.0  # sharpness of its similarity
    views: Views = 10  # random views per support image
    augment: str = "crop-flip"
    search_scale: tuple[Positive, Positive] = (7, 3)  # upper ends of beta and alpha
    search_steps: tuple[Tries, Tries] = (200, 20)  # values of beta and alpha

    def support_needs(self):
        return {"views": Pooled(views=self.views, augment=self.augment, unit=False)}

    def grid(self):
        ends = zip(("beta", "alpha"), self.search_scale, self.search_steps, strict=True)
        return {name: tuple(i * (end - 0.1) / steps + 0.1 for i in range(steps)) for name, end, steps in ends}

    def fit(self, task):
        super().fit(task)
        keys = unit(task.support.views.mean(1))  # raw views: those with a longer norm weigh more
        self.keys = nn.Parameter(keys, requires_grad=False)  # (S, D)
        self.labels = nn.Buffer(task.support.labels)  # (S,)

    def forward(self, batch):
        return self.logits(batch.x)

    def logits(self, x):
        """``(B, D)`` unit-norm embeddings to ``(B, C)``."""
        return self.zero_shot(x) + self.alpha * self.votes(x)

    def votes(self, x):
        """Similarities to the cache summed over each class, in units of the logits, ``(B, C)``."""
        similarity = (self.beta * (self.keys @ x.T - 1)).exp()  # (S, B)
        return self.backbone.logit_scale / 100 * class_sums(similarity, self.labels, len(self.text)).T

    def sweep(self, val):
        classes, betas, scale = len(self.text), self.grid()["beta"], self.backbone.logit_scale / 100
        for x in row_blocks(val.x, classes):
            zero_shot = self.zero_shot(x)
            for votes in kernel_sums(self.keys @ x.T, self.labels, classes, betas, scale):
                yield Linear(zero_shot, {"alpha": votes})


class TipAdapterF(TipAdapter):
    """Zero-shot plus votes of the support images, whose embeddings are trained further."""

    schedule: Schedule = Schedule(
        epochs=20, lr=1e-3, batch_size=256, optimizer="adamw", weight_decay=0.01, eps=1e-4, decay="cosine"
    )

    def fit(self, task):
        super().fit(task)
        self.keys.requires_grad_()


@hookimpl
def methods():
    return {"tip-adapter": TipAdapter, "tip-adapter-f": TipAdapterF}
