"""What a running Gaussian is at a moment: means, scatter, and a reference from which the precision follows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TERMS, TOGETHER = 8, 32  # of the power series in the shift, at most; states that are answered at once


class GaussianState(nn.Module):
    """Means of classes and the precision that they share, in double precision.

    Attributes:
        scatter: of the images' deviations from the means, ``(D, D)``.
        drift: their sum, ``(D,)``.
        count: images, n.
        kind: what the precision is: ``"round"``, D times the identity, before a class has three images; ``"ridge"``,
            shrunk as in GDA, while there are no more than 4 D; ``"plain"``; or ``"still"``, the one before, while all
            deviations are rounding.
    """

    rows: Tensor
    scatter: Tensor
    drift: Tensor
    inverse: Tensor
    series: Tensor
    waiting: Tensor
    waiting_weight: Tensor
    last: Tensor

    def __init__(self, means: Tensor) -> None:
        """`means` are those to start with, ``(C, D)``."""
        super().__init__()
        dim, means = means.shape[1], means.double()
        self.register_buffer("rows", torch.cat([means, means.new_zeros(TOGETHER, dim)]))  # new means go behind
        self.register_buffer("scatter", means.new_zeros(dim, dim))
        self.register_buffer("drift", means.new_zeros(dim))
        self.register_buffer("inverse", means.new_zeros(0, 0))  # of the scatter and the shift, once it is wanted
        self.register_buffer("series", means.new_zeros(TERMS, len(means)))  # the means' squares under its powers
        self.register_buffer("waiting", means.new_zeros(0, dim))  # all columns so far, while there is no inverse
        self.register_buffer("waiting_weight", means.new_zeros(0))
        self.register_buffer("last", means.new_zeros(0, 0))  # precision that stands still
        self.kind, self.count, self.many = "round", 0, False
        self.shift, self.folded, self.rough, self.whole = 0.0, 0, False, True

    @property
    def means(self) -> Tensor:
        """Of the classes, ``(C, D)``."""
        return self.rows[: self.series.shape[1]]

    @property
    def precision(self) -> Tensor:
        """From the scatter, ``(D, D)``."""
        return self.last if self.kind == "still" else solved(self.scatter, self.drift, self.count, self.kind)


def solved(scatter: Tensor, drift: Tensor, n: int, kind: str) -> Tensor:
    """Precision of n images, ``(D, D)``, of their scatter and the sum of their deviations."""
    eye, dim = torch.eye(len(scatter)).to(scatter), len(scatter)
    if kind == "round":
        return dim * eye
    scatter = scatter - torch.outer(drift, drift) / n
    if kind == "plain":
        return (n - 1) * torch.linalg.pinv(scatter, rtol=1e-12, hermitian=True)  # what is below is rounding
    return dim * torch.linalg.inv(scatter + scatter.trace() / (n - 1) * eye)
