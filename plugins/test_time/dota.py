"""Gaussians of the classes, estimated from all images seen so far by their zero-shot probabilities, with no store.

Source: Han et al., DOTA: Distributional Test-Time Adaptation of Vision-Language Models, arXiv:2409.19375.
Deviations: means start at the class embeddings, as the paper has it; a copy of its code that is found on the web
starts them all at 0.001, and leaves `eps` out for the first image. Its hyperparameters were chosen for each test set;
our defaults are those of later papers' comparisons. Classes with less than a millionth of an image's probability are
not updated by it. The Gaussian term is sized for logits of scale 100, so it is multiplied by a hundredth of the
checkpoint's scale. The questions that it can put to a human are not here. Memory: one ``(D, D)`` matrix a class, 1 GB
for 1000 classes of CLIP ViT-B.
"""

import torch
from torch import nn

from adaptkit import Pooled, ZeroShot, hookimpl
from adaptkit.io.ranges import Epsilon, Positive, Share, Views, Weight
from adaptkit.methods.ops import entropy


class DOTA(ZeroShot):
    """Zero-shot plus Gaussians of the classes, estimated from all test images so far."""

    scope = "stream"

    sigma: Positive = 0.002  # variance of every dimension to start with
    eps: Epsilon = 1e-4  # weight of the identity in the shared covariance
    rho: Weight = 0.02  # how fast the Gaussians gain weight, per image and class
    eta: Weight = 0.2  # their weight at most
    views: Views = 1  # the plain image; the paper also takes 64
    keep: Share = 0.1  # share of the views, the most confident, that stand for the image
    augment: str = "wide-crop-flip"

    def needs(self):
        return {"views": Pooled(views=self.views, plain_first=True, augment=self.augment)}

    def fit(self, task):
        super().fit(task)
        classes, dim = self.text.shape
        self.means = nn.Buffer(self.text.clone())
        self.counts = nn.Buffer(self.text.new_ones(classes))
        self.covariances = nn.Buffer(self.sigma * torch.eye(dim).to(self.text).repeat(classes, 1, 1))  # (C, D, D)
        self.shared = nn.Buffer(self.sigma * torch.eye(dim).to(self.text))  # their mean

    def forward(self, batch):
        views = batch.views[0]
        logits = self.zero_shot(views)  # (V, C)
        kept = entropy(logits).argsort(stable=True)[: max(1, int(self.keep * len(views)))]
        x, logits = views[kept], logits[kept]  # (K, D), (K, C)
        weight = (self.rho * self.counts.mean() / len(kept)).clamp_max(self.eta)
        answer = logits.mean(0) + weight * self.backbone.logit_scale / 100 * self.gaussian(x.mean(0))
        self.count(x, logits.softmax(-1))
        return answer[None]

    def gaussian(self, x):
        """Log-likelihood of ``(D,)`` under each class, up to a term that all share, ``(C,)``."""
        identity = torch.eye(len(self.shared)).to(self.shared)
        solved = torch.linalg.solve((1 - self.eps) * self.shared + self.eps * identity, self.means.T)  # (D, C)
        return x @ solved - 0.5 * (self.means.T * solved).sum(0)

    def count(self, x, p):
        """Move counts, means and covariances by rows ``(K, D)`` of which ``(K, C)`` belongs to each class."""
        total = p.sum(0)
        some = (total > 1e-6).nonzero()[:, 0]
        p, share, means = p[:, some], total[some] / (self.counts[some] + total[some]), self.means[some]
        deviations = (x[:, None] - means) * p.sqrt()[..., None]  # (K, M, D)
        scatter = torch.einsum("kmd,kme->mde", deviations, deviations) / total[some, None, None]
        change = share[:, None, None] * (scatter - self.covariances[some])
        self.covariances[some] += change
        self.shared += change.sum(0) / len(self.counts)
        self.means[some] = means + share[:, None] * (p.T @ x / total[some, None] - means)
        self.counts[some] += total[some]


@hookimpl
def methods():
    return {"dota": DOTA}
