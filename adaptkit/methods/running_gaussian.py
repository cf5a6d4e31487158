"""Distances from moving means under one shared covariance that moves with them, without a matrix solved an image.

The covariance is a scatter of rank-one columns that come and leave, less the square of the deviations' sum, and, while
images are few, a multiple of the identity that moves, too. Its inverse is kept at a point of reference. Woodbury's
identity takes it to where the columns are; a power series takes it to where the identity's multiple is. Both act on
products with the means alone, so that an image costs some products of a matrix and a vector.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adaptkit.methods.class_moments import Changes
from adaptkit.methods.gaussian_path import REACH, Stretch, Path
from adaptkit.methods.gaussian_state import TERMS, GaussianState

WAITING = 128  # columns that wait at most before there is an inverse
RENEW, WORST = 8192, 1e10  # columns, or a condition, after which the reference is made anew


class RunningGaussian(GaussianState):
    """Means of classes and the precision that they share, as a stream changes both; all in double precision.

    >>> import torch, adaptkit as ak
    >>> from adaptkit.methods.running_gaussian import RunningGaussian
    >>> RunningGaussian(torch.eye(3)).advance(torch.ones(1, 3), None, [0])
    tensor([[6., 6., 6.]], dtype=torch.float64)
    """

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
        part = Stretch(self, path, first, end, x, after)
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

    def keep(self, part: Stretch) -> None:
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


def well_conditioned(scatter: Tensor) -> bool:
    """Whether the inverse of a symmetric matrix is its pseudoinverse, and accurate."""
    least, most = torch.linalg.eigvalsh(scatter)[[0, -1]].tolist()
    return least * WORST > most
