"""ZPE: prompts of an ensemble are weighted by how sure zero-shot is under each, over images without labels.

Source: Allingham et al., A Simple Zero-shot Prompt Weighting Technique to Improve Prompt Ensembling in Text-Image
Models, arXiv:2302.06235.
Deviations: the paper takes half of the bias that is removed from the logits from a sample of the images that the
backbone was pre-trained on. Here the task's pool is that sample: images that nobody labelled, in practice of the
dataset. Weights add up to one over the prompts that vote; the release averages weighted logits instead, which leaves
the order and shrinks the scale, and lets `extra` prompts take part in the softmax alone; ``as_released=True`` does so.
Where no prompt stands out, the best one votes.
"""

from typing import Literal

import torch
from torch import nn

from adaptkit import ZeroShot, hookimpl
from adaptkit.io.ranges import Count, Share, Weight


class ZPE(ZeroShot):
    """Zero-shot with prompts weighted by how sure it is under each, over all queries."""

    scope = "set"

    debias: Literal["both", "test", "pool", "pool-mean", "none"] = "both"  # what is taken from the logits
    weight: Literal["softmax", "scores", "equal"] = "softmax"
    select: Literal["all", "outliers"] = "all"  # the prompts that vote
    threshold: Weight = 0.5  # of an outlier's distance above the median score, in median absolute deviations
    share: Share = 1.0  # of the queries, in their order, that the test set's bias is taken from
    extra: Count = 0  # prompts at the end that do not vote
    as_released: bool = False

    def pool_needs(self):
        return self.needs() if self.debias in ("both", "pool", "pool-mean") else {}

    def fit(self, task):
        super().fit(task)
        counts = {len(rows) for rows in task.text_per_prompt}
        if len(counts) > 1:
            raise ValueError(f"zpe must have equally many prompts of every class; got {sorted(counts)}; use templates")
        self.prompts = nn.Buffer(torch.stack(task.text_per_prompt, 1))  # (P, C, D)
        if self.pool_needs():
            if task.pool is None or not len(task.pool):
                raise ValueError(f"debias must be 'test' or 'none' without unlabelled images; got {self.debias!r}")
            self.pool = nn.Buffer(task.pool.x.mean(0, keepdim=True))  # (1, D)

    def forward(self, batch):
        voters = self.prompts[: len(self.prompts) - self.extra]
        scores = self.scores(batch.x).mean(0)  # (P,)
        kept = self.outliers(scores[: len(voters)]) if self.select == "outliers" else slice(len(voters))
        weights = {"softmax": scores.softmax(0), "scores": scores, "equal": torch.ones_like(scores)}[self.weight][kept]
        weights = weights / (len(weights) if self.as_released else weights.sum())
        text = torch.einsum("p,pcd->cd", weights.double(), voters[kept].double())  # logits are linear in it
        logits = self.backbone.logits(batch.x.double(), text).to(batch.x)  # weights of scores make them large
        return logits + (weights.sum() - 1) * self.backbone.logit_bias

    def scores(self, x):
        """The largest unbiased logit of each image under each prompt, ``(N, P)``."""
        mean = x[: max(1, int(self.share * len(x)))].mean(0, keepdim=True)  # (1, D)
        scores = [(self.backbone.logits(x, text) - self.bias(mean, text)).amax(1) for text in self.prompts]
        return torch.stack(scores, 1)

    def bias(self, mean, text):
        """What a prompt's logits are on average, ``(1, C)``: over the test images, the pool, or half each."""
        if self.debias == "none":
            return 0.0
        if self.debias == "test":
            return self.backbone.logits(mean, text)
        pool = self.backbone.logits(self.pool, text)
        if self.debias == "both":
            return (pool + self.backbone.logits(mean, text)) / 2
        return pool if self.debias == "pool" else pool.mean()

    def outliers(self, scores):
        """Prompts whose score is far above the median, or the best one."""
        above = scores - scores.quantile(0.5)
        kept = (above > self.threshold * above.abs().quantile(0.5)).nonzero()[:, 0]
        return kept if len(kept) else scores.argmax()[None]


@hookimpl
def methods():
    return {"zpe": ZPE}
