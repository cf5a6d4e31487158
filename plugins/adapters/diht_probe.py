"""A linear probe that starts as zero-shot and is kept near it by projected gradients.

Source: Radenovic et al., Filtering, Distillation, and Hard Negatives for Vision-Language Pre-Training,
arXiv:2301.02280: its few-shot probe.
Deviations: written without the paper's formulas, of which no code is released. It starts from the text embeddings and
projects gradient steps, so that few shots should do no worse than none; that the constraint is a ball around each
class's text embedding, and that its radius is chosen on validation images, are ours. The problem is convex, and solved
by accelerated steps on all views of all images at once.
"""

from functools import cache

import torch
from torch import nn

from adaptkit import Pooled, ZeroShot, hookimpl
from adaptkit.io.ranges import Steps, Views, Weight
from adaptkit.methods.explore import choose
from adaptkit.methods.ops import one_hot


class DiHTProbe(ZeroShot):
    """A linear probe that starts as zero-shot and must stay within a radius of it.

    Class weights of least cross-entropy within `radius` of the text embeddings.
    """

    radius: Weight = 0.3  # for when there are no validation images; embeddings have norm 1
    radii: tuple[Weight, ...] = (0.0, 0.1, 0.2, 0.4, 0.8)  # to choose from; the first best wins
    views: Views = 10  # random views per support image, each a sample of its own
    augment: str = "crop-flip"
    steps: Steps = 100

    def support_needs(self):
        return {"views": Pooled(views=self.views, augment=self.augment)}

    def fit(self, task):
        super().fit(task)
        task.require_support("diht-probe")
        views = task.support.views  # (S, V, D)
        x, hot = views.flatten(0, 1), one_hot(task.support.labels, len(self.text)).repeat_interleave(views.shape[1], 0)
        solve = cache(lambda radius: self.solve(x, hot, radius))

        def right(radius):
            return int((task.val.x @ solve(radius).T).argmax(-1).eq(task.val.labels).sum())

        if task.val is not None and len(task.val):
            self.radius = choose(self, "radius", self.radii, right)
        self.text = nn.Buffer(solve(self.radius))

    def solve(self, x, hot, radius):
        """Weights, ``(C, D)``, by Nesterov's method with a projection after every step."""
        text, ahead, scale = self.text, self.text, self.backbone.logit_scale
        rate = 2 * len(x) / (scale * torch.linalg.matrix_norm(x, 2)).square().clamp_min(1e-12)  # 1 / curvature
        weight, momentum = text, 1.0
        for _ in range(self.steps):
            p = self.backbone.logits(x, ahead).softmax(-1)
            moved = ahead - rate * scale * (p - hot).T @ x / len(x) - text
            longest = moved.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            last, weight = weight, text + moved * (radius / longest).clamp_max(1)
            grown = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead, momentum = weight + (momentum - 1) / grown * (weight - last), grown
        return weight


@hookimpl
def methods():
    return {"diht-probe": DiHTProbe}
