"""Distances from moving means under one shared covariance that moves with them, without a matrix solved an image.

The covariance is a scatter of rank-one columns that come and leave, less the square of the deviations' sum, and, while
images are few, a multiple of the identity that moves, too. Its inverse is kept at a point of reference. Woodbury's
identity takes it to where the columns are; a power series takes it to where the identity's multiple is. Both act on
products with the means alone, so that an image costs some products of a matrix and a vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adaptkit.methods.class_moments import Changes
from adaptkit.methods.gaussian_path import REACH, TERMS, TOGETHER, Part, Path

WAITING = 128  # columns that wait at most before there is an inverse
RENEW, WORST = 8192, 1e10  # columns, or a condition, after which the reference is made anew


class RunningGaussian(nn.Module):
    """Means of classes and the precision that they share, as a stream changes both; all in double precision.

    Attributes:
        scatter: of the images' deviations from the means, ``(D, D)``.
        drift: their sum, ``(D,)``.
        count: images, n.
        kind: what the precision is: ``"round"``, D times the identity, before a class has three images; ``"ridge"``,
            shrunk as in GDA, while there are no more than 4 D; ``"plain"``; or ``"still"``, the one before, while all
            deviations are rounding.

    >>> import torch, adaptkit as ak
    >>> from adaptkit.methods.running_gaussian import RunningGaussian
    >>> RunningGaussian(torch.eye(3)).advance(torch.ones(1, 3), None, [0])
    tensor([[6., 6., 6.]], dtype=torch.float64)
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

    def advance(self, x: Tensor, made: Changes | None, after: list[int]) -> Tensor:
        """Squared distances of images ``(B, D)`` from the means, ``(B, C)``; the changes are made on the way.

        Args:
            x: images.
            made: the changes, if there are any.
            after: how many of these each image is answered after; never fewer than the one before it.
        """
        x, out, done = x.double(), [], 0
        path = Path(self, made)
        for first, end in path.parts(after[0]):
            upto = sum(s <= end for s in after)
            out += self.run(path, first, end, x[done:upto], after[done:upto])
            done = upto
        return torch.cat(out)

    def run(self, path: Path, first: int, end: int, x: Tensor, after: list[int]) -> list[Tensor]:
        """Distances at states of one kind, from `first` to `end`; in two parts where the shift goes too far."""
        kind, shifts = path.kind[end], path.shift[first : end + 1]
        if kind == "still" and self.kind != "still":
            self.last = self.precision
        if kind in ("ridge", "plain") and not self.ready(path, first, end):
            if end > first and max(shifts) - min(shifts) > REACH * min(shifts):
                middle = (first + end) // 2
                upto = sum(s <= middle for s in after)
                before = self.run(path, first, middle, x[:upto], after[:upto])
                return before + self.run(path, middle + 1, end, x[upto:], after[upto:])
            self.renew(kind, (min(shifts) + max(shifts)) / 2)
        part = Part(self, path, first, end, x, after)
        self.keep(part)
        return [part.distances] if len(x) else []

    def ready(self, path: Path, first: int, end: int) -> bool:
        """Whether the reference serves for these states."""
        if not len(self.inverse):
            return path.kind[end] == "ridge" and self.waits(len(path.columns(first, end)[0]))
        if self.rough or self.folded > RENEW or path.kind[end] != self.kind:
            return False
        return max(abs(shift - self.shift) for shift in path.shift[first : end + 1]) <= REACH * self.shift

    def waits(self, more: int) -> bool:
        """Whether all columns so far are few, these among them."""
        return self.whole and len(self.waiting) + more <= min(WAITING, len(self.drift))

    def renew(self, kind: str, shift: float) -> None:
        """Make the reference anew, from the scatter."""
        moved = self.scatter + shift * torch.eye(len(self.scatter)).to(self.scatter)
        self.rough = kind == "plain" and not well_conditioned(moved)
        self.inverse = moved if self.rough else torch.cholesky_inverse(torch.linalg.cholesky(moved))
        self.shift, self.folded, self.whole = shift, 0, False
        self.waiting, self.waiting_weight = self.waiting[:0], self.waiting_weight[:0]
        now = self.means
        for k in range(0, TERMS if kind == "ridge" else 1, 2):
            before, now = now, now @ self.inverse
            self.series[k], self.series[k + 1] = (before * now).sum(1), now.square().sum(1)

    def keep(self, part: Part) -> None:
        """Make the changes of some states, which were answered."""
        path, column, weight = part.path, part.column, part.weight
        if len(column):
            if part.kind in ("round", "still") or not len(self.inverse):
                self.whole = self.waits(len(column))
                self.inverse = self.inverse[:0, :0]
                self.waiting = torch.cat([self.waiting, column])[: None if self.whole else 0]
                self.waiting_weight = torch.cat([self.waiting_weight, weight])[: None if self.whole else 0]
            elif part.fails:
                self.rough = True
            elif not self.rough:
                part.fold(self.inverse, self.series)
                self.folded += len(column)
            self.scatter.addmm_(weight * column.T, column)
        self.rows[[*part.current]] = self.rows[[*part.current.values()]]
        end = part.end
        self.drift, self.count, self.many, self.kind = path.drift[end], path.n[end], path.many[end], path.kind[end]
        if self.kind == "plain" and not self.inverse.trace() * self.scatter.trace() < WORST:
            self.folded = RENEW + 1


def solved(scatter: Tensor, drift: Tensor, n: int, kind: str) -> Tensor:
    """Precision of n images, ``(D, D)``, of their scatter and the sum of their deviations."""
    eye, dim = torch.eye(len(scatter)).to(scatter), len(scatter)
    if kind == "round":
        return dim * eye
    scatter = scatter - torch.outer(drift, drift) / n
    if kind == "plain":
        return (n - 1) * torch.linalg.pinv(scatter, rtol=1e-12, hermitian=True)  # what is below is rounding
    return dim * torch.linalg.inv(scatter + scatter.trace() / (n - 1) * eye)


def well_conditioned(scatter: Tensor) -> bool:
    """Whether the inverse of a symmetric matrix is its pseudoinverse, and accurate."""
    least, most = torch.linalg.eigvalsh(scatter)[[0, -1]].tolist()
    return least * WORST > most
