"""CoOp without labels: contexts that start from different noise learn from pseudo-labels, and answer together.

The images and their labels are the support's: ``support: pseudo-label``, with as many shots as the paper's K, 16, and
``select: none``. UPL*, whose pseudo-labels are of several backbones together, is ``{pseudo-label: {others: [...]}}``.

Source: Huang et al., Unsupervised Prompt Learning for Vision-Language Models, arXiv:2204.03649.
Deviations: all contexts are trained in one run and see the same batches and views; the authors train each in a run of
its own, by another seed. Their logits are averaged, as in the release. Random views come from a cache of ten unless
``fresh``; the authors draw a new one at every step. Float32 instead of float16.
"""

import torch
from torch import nn

from adaptkit import hookimpl, unit
from adaptkit.io.ranges import Size
from adaptkit.methods.ops import as_queries
from adaptkit.methods.prompt_learner import ContextLearner


class UPL(ContextLearner):
    """Several trained contexts on pseudo-labels; the mean of their logits."""

    members: Size = 16  # contexts that answer together

    tunable = ("contexts",)

    def fit(self, task):
        each = []
        for _ in range(self.members):
            super().fit(task)
            each.append(self.context)
        del self.context
        self.contexts = nn.ParameterList(each)  # (n, W), or (C, n, W) with `per_class`

    def text(self):
        """Class embeddings under each context, ``(E, C, D)``, unit-norm."""
        contexts = torch.stack([*self.contexts])
        return unit(self.prompts.encode(contexts if self.per_class else contexts[:, None]))

    def forward(self, batch):
        return self.backbone.logits(batch.x, self.text().mean(0))  # logits are linear in the class embeddings

    def loss(self, batch):
        """The sum over contexts: each gets its own gradient, as if it were trained alone."""
        x = as_queries(batch, self.needs()).x
        logits = [self.backbone.logits(x, own) for own in self.text()]
        return sum(self.evaluation.loss(each, batch.targets) for each in logits)


@hookimpl
def methods():
    return {"upl": UPL}
