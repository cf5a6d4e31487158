"""CoOp whose prompts are kept unsure of regions that do not show the class: what is not of the classes is told by them.

Source: Miyai et al., LoCoOp: Few-Shot Out-of-Distribution Detection via Prompt Learning, arXiv:2306.01293.
Deviations: K, the rank up to which a region counts as its class's, is a share of the classes; the authors take 200 of
ImageNet's 1000. Scores are of cosines; the release divides logits by 100 whatever the model's scale: ``as_released``.
Random views come from a cache of ten unless ``fresh``, patch by patch, which takes P times the room of embeddings.
Float32 instead of float16.
"""

from dataclasses import replace

import torch

from adaptkit import Dense, Pooled, Schedule, hookimpl
from adaptkit.io.ranges import Positive, Share, Weight
from adaptkit.methods.ops import as_queries
from adaptkit.methods.prompt_learner import ContextLearner
from adaptkit.methods.schedule import DASSL

EPSILON = 1e-5  # added to probabilities in the entropy of regions


class LoCoOp(ContextLearner):
    """Trained context words, and a score of the whole image and of its patches."""

    output = "score"

    top: Share = 0.2  # share of the classes, K, among which a region that shows the class must rank it
    push: Weight = 0.25  # of the entropy of regions that do not, lambda
    local: Weight = 1.0  # of the patches in the score
    temperature: Positive = 1.0  # of cosines
    as_released: bool = False
    schedule: Schedule = replace(DASSL, epochs=50, lr=0.002, batch_size=32)

    def needs(self):
        return {"x": Pooled(), "patches": Dense()}

    def support_needs(self):
        how = {"views": 1 if self.fresh else self.views, "augment": "wide-crop-flip", "fresh": self.fresh}
        return {"views": Pooled(**how), "patch_views": Dense(**how)}

    def forward(self, batch):
        text = self.text()
        factor = self.temperature * (100 if self.as_released else self.backbone.logit_scale)
        whole = (self.backbone.logits(batch.x, text) / factor).softmax(-1).amax(-1)
        patches = (self.backbone.logits(batch.patches, text) / factor).softmax(-1).amax((-2, -1))  # of (B, P, C)
        return whole + self.local * patches

    def loss(self, batch):
        cross_entropy, entropy = self.parts(batch)
        return cross_entropy + self.push * entropy

    def parts(self, batch):
        """Cross-entropy of the whole images, and minus the mean entropy of regions that do not show the class, nats."""
        text, shown = self.text(), as_queries(batch, self.needs())
        logits = self.backbone.logits(shown.x, text)  # (B, C)
        cross_entropy = self.evaluation.loss(logits, batch.labels)
        p = self.backbone.logits(shown.patches, text).softmax(-1)  # (B, P, C)
        among = p.topk(max(1, round(self.top * p.shape[-1])), -1).indices == batch.labels[:, None, None]
        p = p[~among.any(-1)]  # (R, C)
        entropy = -(p * (p + EPSILON).log()).sum(-1)
        return cross_entropy, -entropy.mean() if len(p) else torch.zeros_like(cross_entropy)


@hookimpl
def methods():
    return {"lo-co-op": LoCoOp}
