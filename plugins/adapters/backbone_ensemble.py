"""Several backbones vote: their zero-shot logits are added up with weights from a few labelled images.

Source: Rodriguez-Opazo et al., Unveiling Backbone Effects in CLIP: Exploring Representational Synergies and Variances,
arXiv:2312.14400.
Deviations: written from the abstract and summaries; the authors train a small network that gives a temperature to each
backbone, here each has one weight, an inverse temperature, and the least cross-entropy on the support, with a small
penalty, decides them: a convex problem, solved. All logits have the scale of the task's own backbone. Without support
images the weights are equal.
"""

import torch
from torch import nn

from adaptkit import Method, Pooled, hookimpl
from adaptkit.io.ranges import Epsilon, Steps
from adaptkit.methods.ops import one_hot


class BackboneEnsemble(Method):
    """Sum of several backbones' zero-shot logits, weighted by a few labelled images."""

    others: tuple[str, ...] = ()  # further backbones, e.g. "hf:openai/clip-vit-base-patch32"
    penalty: Epsilon = 1e-3  # on the squared distance of weights from equal ones
    steps: Steps = 50  # of Newton's method, at most

    def needs(self):
        return {f"x{k}": Pooled(backbone=name) for k, name in enumerate(("", *self.others))}

    def fit(self, task):
        self.backbone = task.backbone
        for k, name in enumerate(("", *self.others)):
            self.register_buffer(f"text{k}", task.text_by(name) if name else task.text.clone())  # (C, D_k)
        count = 1 + len(self.others)
        start = torch.full((count,), 1 / count, device=task.support.device)
        self.weights = nn.Buffer(self.solve(task.support, start) if len(task.support) else start)  # (K,)

    def each(self, batch):
        """Zero-shot logits by each backbone, ``(B, C, K)``."""
        parts = range(1 + len(self.others))
        return torch.stack(
            [self.backbone.logits(getattr(batch, f"x{k}"), getattr(self, f"text{k}")) for k in parts], -1
        )

    def forward(self, batch):
        return self.each(batch) @ self.weights

    def solve(self, support, start):
        """Weights of least penalised cross-entropy, by damped Newton steps."""
        logits, start = self.each(support).double(), start.double()
        hot = one_hot(support.labels, logits.shape[1]).double()

        def risk(w):
            return float(
                -((logits @ w).log_softmax(-1) * hot).sum(-1).mean() + self.penalty * (w - start).square().sum()
            )

        w = start
        for _ in range(self.steps):
            p = (logits @ w).softmax(-1)  # (S, C)
            mean = torch.einsum("sc,sck->sk", p, logits)
            gradient = torch.einsum("sc,sck->k", p - hot, logits) / len(p) + 2 * self.penalty * (w - start)
            hessian = torch.einsum("sc,sck,scj->kj", p, logits, logits) - mean.T @ mean
            hessian = hessian / len(p) + 2 * self.penalty * torch.eye(len(w)).to(w)
            step, size = torch.linalg.solve(hessian, gradient), 1.0
            while size > 1e-9 and risk(w - size * step) > risk(w):
                size /= 2
            w = w - size * step
            if float(step.abs().max()) < 1e-10:
                break
        return w.float()


@hookimpl
def methods():
    return {"backbone-ensemble": BackboneEnsemble}
