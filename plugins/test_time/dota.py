"""Gaussians of the classes, estimated from all images seen so far by their zero-shot probabilities, with no store.

Source: Han et al., DOTA: Distributional Test-Time Adaptation of Vision-Language Models, arXiv:2409.19375.
Deviations: means start at the class embeddings, as the paper has it; a copy of its code that is found on the web
starts them all at 0.001, and leaves `eps` out for the first image. Its hyperparameters were chosen for each test set;
our defaults are those of later papers' comparisons. Classes with less than a millionth of an image's probability are
not updated by it. A class's matrix takes the images of 32 at once, to the same numbers. The Gaussian term is sized for
logits of scale 100, so it is multiplied by a hundredth of the checkpoint's scale. The questions that it can put to a
human are not here. Memory: one ``(D, D)`` matrix a class, 1 GB for 1000 classes of CLIP ViT-B.
"""

import torch

from adaptkit import Pooled, ZeroShot, hookimpl
from adaptkit.io.ranges import Epsilon, Positive, Share, Views, Weight
from adaptkit.methods.class_scatters import ROWS, ClassScatters
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
        self.held = ClassScatters(self.text, self.sigma)

    def forward(self, batch):
        return torch.cat([self.answer(views) for views in batch.views.split(self.together(batch.views.shape[1]))])

    def replay(self, stream):
        return self(stream)

    def kept(self, views):
        """How many of the views stand for an image."""
        return max(1, int(self.keep * views))

    def together(self, views):
        """Images that are answered at once: as many as one reading of the classes' matrices serves."""
        return max(1, ROWS // self.kept(views))

    def answer(self, views):
        logits = self.zero_shot(views)  # (B, V, C)
        kept = entropy(logits).argsort(dim=1, stable=True)[:, : self.kept(views.shape[1]), None]
        x, logits = views.take_along_dim(kept, 1), logits.take_along_dim(kept, 1)  # (B, K, D), (B, K, C)
        shared, means, count = self.held.advance(x, logits.softmax(-1))
        weight = (self.rho * count / x.shape[1]).clamp_max(self.eta) * self.backbone.logit_scale / 100
        return logits.mean(1) + weight[:, None] * self.gaussian(x.mean(1), shared, means)

    def gaussian(self, x, shared, means):
        """Log-likelihoods of ``(B, D)`` under each class, up to a term that all share, ``(B, C)``."""
        covariance = (1 - self.eps) * shared + self.eps * torch.eye(x.shape[1]).to(x)
        both = torch.cat([means, x[:, None]], 1).mT  # (B, D, C + 1)
        white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), both, upper=False)
        means, x = white[..., :-1], white[..., -1:]
        return (means * (x - 0.5 * means)).sum(1)


@hookimpl
def methods():
    return {"dota": DOTA}
