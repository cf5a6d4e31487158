"""A covariance for each class, moved by every image's probabilities, of which their mean is asked for each image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROWS = 32  # that wait until the classes' own matrices take them


class ClassScatters(nn.Module):
    """Counts, means and scatters of classes, to which rows belong by shares.

    A class's matrix is read and written once for `ROWS` rows. Until then what those add is a small matrix of
    coefficients of them and of the class's mean, by which the mean of all covariances follows.

    Attributes:
        means: ``(C, D)``.
        counts: ``(C,)``.

    >>> import torch
    >>> from adaptkit.methods.class_scatters import ClassScatters
    >>> held = ClassScatters(torch.eye(3), 0.5)
    >>> held.advance(torch.ones(1, 1, 3), torch.full((1, 1, 3), 0.2))[0]
    tensor([[[0.5000, 0.0000, 0.0000],
             [0.0000, 0.5000, 0.0000],
             [0.0000, 0.0000, 0.5000]]])
    """

    means: Tensor
    counts: Tensor
    scatters: Tensor
    first: Tensor
    rows: Tensor
    shares: Tensor
    mixes: Tensor

    def __init__(self, means: Tensor, variance: float) -> None:
        """`means` are those to start with, ``(C, D)``, counting as one row each, of this variance."""
        super().__init__()
        classes, dim = means.shape
        self.register_buffer("means", means.clone())
        self.register_buffer("counts", means.new_ones(classes))
        self.register_buffer("scatters", variance * torch.eye(dim).to(means).repeat(classes, 1, 1))  # (C, D, D)
        self.register_buffer("first", means.clone())  # means when the matrices were written
        self.register_buffer("rows", means.new_zeros(0, dim))  # since then, (J, D)
        self.register_buffer("shares", means.new_zeros(0, classes))  # of them
        self.register_buffer("mixes", means.new_zeros(classes, ROWS + 1, ROWS + 1))  # of the mean then and the rows

    @property
    def room(self) -> int:
        """How many rows may wait."""
        return self.mixes.shape[1] - 1

    @property
    def covariances(self) -> Tensor:
        """Of the classes, ``(C, D, D)``."""
        self.write()
        return self.scatters / self.counts[:, None, None]

    def advance(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Count rows ``(N, K, D)`` of images, of which ``(N, K, C)`` belongs to each class.

        Returns:
            Before each image was counted, the mean of the covariances ``(N, D, D)``, the means ``(N, C, D)`` and the
            mean count, ``(N,)``.
        """
        classes, (count, each, dim) = len(self.means), x.shape
        if len(self.rows) + count * each > self.room:
            self.write()
        if count * each > self.room:  # an image of many rows
            self.mixes = self.mixes.new_zeros(classes, count * each + 1, count * each + 1)
        total = p.sum(1)
        p = p * (total > 1e-6)[:, None]  # less is left out
        after = self.counts + p.sum(1).cumsum(0)
        counts = torch.cat([self.counts[None], after[:-1]])  # (N, C)
        shared = ((1 / (classes * counts)) @ self.scatters.flatten(1)).view(count, dim, dim)
        means = []
        for i in range(count):
            means.append(self.means)
            if len(self.rows):
                shared[i] += self.waiting(1 / (classes * counts[i]))
            self.count(x[i], p[i], counts[i], after[i])
        return shared, torch.stack(means), counts.mean(1)

    def waiting(self, weight: Tensor) -> Tensor:
        """What the rows that wait add to the classes' scatters, summed with weights ``(C,)``, ``(D, D)``."""
        n = len(self.rows)
        mixes = (weight @ self.mixes.flatten(1)).view(self.mixes.shape[1:])[1 : n + 1, 1 : n + 1]
        across = (self.mixes[:, 1 : n + 1, 0] * weight[:, None]).T @ self.first  # (J, D)
        own = (self.mixes[:, 0, 0] * weight)[:, None] * self.first
        both = torch.cat([self.rows, self.rows, across, self.first])
        return both.T @ torch.cat([mixes @ self.rows, across, self.rows, own])

    def count(self, x: Tensor, p: Tensor, before: Tensor, after: Tensor) -> None:
        """Count the rows ``(K, D)`` of one image, with counts from `before` to `after`."""
        n = len(self.rows)
        new = range(n + 1, n + 1 + len(x))
        begun = before - self.shares.sum(0)  # when the matrices were written
        mean = -torch.cat([begun[None], self.shares]).T / before[:, None]  # mixes of the means, (C, 1 + J)
        for i, share in zip(new, p, strict=True):
            mix = self.mixes.new_zeros(self.mixes.shape[:2])
            mix[:, : n + 1], mix[:, i] = mean, 1.0
            self.mixes.baddbmm_((mix * share[:, None])[..., None], mix[:, None])
        self.rows, self.shares = torch.cat([self.rows, x]), torch.cat([self.shares, p])
        self.means = self.means + (p.T @ x - p.sum(0)[:, None] * self.means) / after[:, None]
        self.counts = after

    def write(self) -> None:
        """Let the classes' own matrices take the rows that wait."""
        n, some = len(self.rows), (self.shares.sum(0) > 0).nonzero()[:, 0]
        for c in some.split(64) if n else ():  # so that what is made on the way stays small
            held = torch.cat([self.first[c, None], self.rows.expand(len(c), -1, -1)], 1)  # (M, 1 + J, D)
            mixed = self.mixes[c, : n + 1, : n + 1] @ held
            if int(c[-1]) - int(c[0]) + 1 == len(c):
                self.scatters[int(c[0]) : int(c[-1]) + 1].baddbmm_(held.mT, mixed)
            else:
                self.scatters[c] += held.mT @ mixed
        self.first, self.rows, self.shares = self.means, self.rows[:0], self.shares[:0]
        self.mixes.zero_()
