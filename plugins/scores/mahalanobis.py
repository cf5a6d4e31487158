"""Distance to the nearest class mean under one covariance of the support images.

Source: Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, arXiv:1807.03888, on pooled
features.
Deviations: the covariance is shrunk (Ledoit and Wolf, 2004) and each image enters by random views, so that a few shots
will do. MCM's code, where CLIP's numbers come from, scales the class means to unit norm and takes the covariance of all
images about their common mean, unshrunk; ``as_released=True`` does that.
"""

import torch

from adaptkit import Method, Pooled, hookimpl, unit
from adaptkit.io.ranges import Views


class Mahalanobis(Method):
    """Scores an image by its distance to the nearest class mean of the support."""

    output = "score"

    views: Views = 10  # random views per support image, each a sample of its own
    augment: str = "crop-flip"
    as_released: bool = False

    def support_needs(self):
        return {"views": Pooled(views=self.views, augment=self.augment)}

    def fit(self, task):
        views = task.support.views  # (S, V, D)
        x, labels = views.flatten(0, 1), task.support.labels.repeat_interleave(views.shape[1])
        counts = labels.bincount(minlength=len(task.classnames))
        if not counts.all():
            raise ValueError(f"support must have images of every class; got none of class {counts.argmin()}")
        means = torch.zeros(len(counts), x.shape[1]).to(x).index_add_(0, labels, x) / counts[:, None]  # (C, D)
        centred = x - means[labels]
        if not self.as_released and not centred.any():
            raise ValueError("support must have two different images or views of some class; got one of each")
        covariance = x.cpu().double().T.cov() if self.as_released else shrunk(centred.cpu().double())
        factor = torch.linalg.cholesky(covariance)  # covariance = L L^T, so x L^-T has unit covariance
        self.register_buffer("whiten", torch.linalg.inv(factor).T.to(x))  # (D, D)
        self.register_buffer("means", unit(means) if self.as_released else means)

    def forward(self, batch):
        distance = torch.cdist(batch.x @ self.whiten, self.means @ self.whiten)  # (B, C)
        return -0.5 * distance.amin(1).square()


def shrunk(centred):
    """Covariance ``(D, D)`` of rows without their mean, drawn towards a multiple of the identity."""
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(centred.numpy(), assume_centered=True)
    return torch.from_numpy(covariance)


@hookimpl
def methods():
    return {"mahalanobis": Mahalanobis}
