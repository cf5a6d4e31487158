"""Softmax regression by Newton's method, for one penalty after the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 2**20  # logits worked on together: so many stay in a processor's cache
INNER = 0.2  # of the gradient, left by the conjugate gradients of a step: exacter steps cost more than they save
SMALL = 2**17  # logits that take no time in double precision


class SoftmaxRegression:
    """Weights and biases of least ``c * sum of cross-entropies + |weights|^2 / 2``, for any c; biases are free.

    The optimum lies in the span of the centred rows, in whose principal axes each class's curvature is nearly diagonal;
    what is not is left to conjugate gradients. Many rows are worked on in single precision: everything is computed from
    a class's margin over the right one, so that rounding stays small beside what little weak penalties leave to learn.
    Solutions are kept: they change smoothly with log c, so that the next one starts on a curve through them.

    >>> import torch
    >>> x, labels = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 1, 2])
    >>> weight, bias = SoftmaxRegression(x, labels, 3).solve(1e3)
    >>> (x.double() @ weight.T + bias).argmax(1).tolist()
    [0, 1, 2]
    """

    def __init__(self, x: Tensor, labels: Tensor, classes: int, max_iter: int = 1000, tol: float = 1e-3) -> None:
        """Prepare.

        Args:
            x: rows, ``(N, D)``.
            labels: ``(N,)``.
            classes: their number, C.
            max_iter: passes over the rows for one solution, after which what is there is used.
            tol: the gradient's norm over that of the penalty's own, at which it stops: a bound on the weights' relative
                error.
        """
        self.labels, self.max_iter, self.tol = labels[:, None], max_iter, tol
        rows = x.double().cpu()
        self.centre = rows.mean(0)
        rows = rows - self.centre
        narrow = torch.linalg.qr(rows, mode="r").R if len(rows) > rows.shape[1] else rows  # of the same axes
        _, s, axes = torch.linalg.svd(narrow, full_matrices=False)
        self.axes = axes[s > 1e-7 * s[0]]  # (R, D)
        z = torch.cat([rows @ self.axes.T, rows.new_ones(len(rows), 1)], 1)  # the last is the bias's
        double = x.dtype == torch.double or (len(z) * classes <= SMALL and x.device.type != "mps")
        self.z = z.to(x.device, torch.double if double else torch.float)  # (N, R + 1)
        self.p = self.z.new_empty(len(z), classes)  # softmax at the last point looked at, (N, C)
        size = max(64, BLOCK // classes) if x.device.type == "cpu" else len(z)
        self.blocks = [slice(i, i + size) for i in range(0, len(z), size)]
        self.found = dict[float, Tensor]()  # by log10 c, (C, R + 1)
        self.passes = self.spent = 0.0  # over the rows, there and back: for the last solution, and for all

    def solve(self, c: float) -> tuple[Tensor, Tensor]:
        """Weight ``(C, D)`` and bias ``(C,)``, on the processor in double precision; both have a mean of zero."""
        at = math.log10(c)
        if at not in self.found:
            self.found[at] = self.newton(1 / (c * len(self.z)), self.guess(at))
            self.spent += self.passes
        found = self.found[at].double().cpu()
        found = found - found.mean(0)
        weight = found[:, :-1] @ self.axes
        return weight, found[:, -1] - weight @ self.centre

    def guess(self, at: float) -> Tensor:
        """Where to start: on the curve through the nearest solutions."""
        near = sorted(self.found, key=lambda other: abs(other - at))[:3]
        if not near:
            return self.z.new_zeros(self.p.shape[1], self.z.shape[1])
        near = near if min(near) < at < max(near) else near[:2]  # beyond the solutions a straight line
        shares = [math.prod((at - b) / (a - b) for b in near if b != a) for a in near]
        return sum((share * self.found[a] for share, a in zip(shares, near, strict=True)), self.z.new_zeros(()))

    def newton(self, penalty: float, w: Tensor) -> Tensor:
        """The optimum ``(C, R + 1)`` for a penalty of the mean loss, from a point near it."""
        ridge = torch.full_like(w[0], penalty)
        ridge[-1] = 0
        cost, gradient = self.look(w, ridge)
        self.passes = 1.0
        while (size := float(gradient.norm())) > self.tol * (own := float((ridge * w).norm())):
            precise = max(INNER, 0.3 * self.tol * own / size)
            step = self.direction(gradient, ridge, precise)
            slope, share = float((gradient * step).sum()), 1.0
            room = 10 * torch.finfo(w.dtype).eps * cost  # what rounding makes of it
            while True:
                ahead, grown = self.look(w + share * step, ridge)
                self.passes, less = self.passes + 1, float(grown.norm()) < size / 2
                if ahead <= cost + 1e-4 * share * slope or (less and ahead <= cost + room):
                    break
                share /= 2
                if share < 1e-4:  # all that is left is rounding
                    return w
            w, gradient, settled = w + share * step, grown, ahead > cost - room and not less
            cost = ahead
            if settled or self.passes > self.max_iter:
                break
        return w

    def look(self, w: Tensor, ridge: Tensor) -> tuple[float, Tensor]:
        """The mean loss with its penalty, and its gradient ``(C, R + 1)``; `p` is the softmax there afterwards."""
        loss, gradient = self.z.new_zeros(()), torch.zeros_like(w)
        for block in self.blocks:
            z, p, right = self.z[block], self.p[block], self.labels[block]
            torch.mm(z, w.T, out=p)
            p -= p.gather(1, right)  # margins
            top = p.amax(1, keepdim=True)  # (n, 1)
            own = (-top).exp()
            p.sub_(top).exp_().scatter_(1, right, 0)
            others = p.sum(1, keepdim=True)
            total = own + others
            loss += torch.where(top > 0, top + total.log(), (others / own).log1p()).sum()
            p /= total
            gradient += p.scatter_(1, right, -others / total).T @ z
            p.scatter_(1, right, own / total)
        gradient = gradient / len(self.z) + ridge * w
        gradient -= gradient.mean(0)  # of what all classes share nothing is learned: there it is rounding
        return float(loss) / len(self.z) + float((ridge * w.square()).sum()) / 2, gradient

    def direction(self, gradient: Tensor, ridge: Tensor, precise: float) -> Tensor:
        """Newton's step by conjugate gradients, scaled by the curvature of each number alone."""
        scale = self.curvature() + ridge
        scale.clamp_min_(1e-12 * float(scale.max()))
        step, rest = torch.zeros_like(gradient), -gradient
        scaled = rest / scale
        along, left = scaled, float((rest * scaled).sum())
        enough, self.passes = precise**2 * left, self.passes + 0.5
        while left > enough and self.passes <= self.max_iter:
            bent, self.passes = self.bend(along) + ridge * along, self.passes + 1
            curved = float((along * bent).sum())
            if curved <= 0:
                break
            step, rest = step.add(along, alpha=left / curved), rest.sub(bent, alpha=left / curved)
            scaled = rest / scale
            left, before = float((rest * scaled).sum()), left
            along = scaled.add(along, alpha=left / before)
        return step - step.mean(0)

    def curvature(self) -> Tensor:
        """The diagonal of the mean loss's Hessian, ``(C, R + 1)``."""
        parts = ((p - p.square()).T @ z.square() for z, p in ((self.z[b], self.p[b]) for b in self.blocks))
        return sum(parts, torch.zeros(()).to(self.z)) / len(self.z)

    def bend(self, w: Tensor) -> Tensor:
        """The mean loss's Hessian times `w`, ``(C, R + 1)``."""
        bent = torch.zeros_like(w)
        for block in self.blocks:
            z, p, right = self.z[block], self.p[block], self.labels[block]
            change = z @ w.T  # (n, C)
            change -= change.gather(1, right)
            change -= torch.linalg.vecdot(p, change)[:, None]
            bent += change.mul_(p).T @ z
        return bent / len(self.z)
