"""The states that changes lead a running Gaussian through, and distances at many of them at once."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate, groupby
from math import ceil, log

import torch
from torch import Tensor

from adaptkit.methods.class_moments import Changes
from adaptkit.methods.gaussian_state import TERMS, TOGETHER, GaussianState, solved

RESIDUE = 1e-10  # what the series may leave of the inverse
REACH = RESIDUE ** (1 / TERMS)  # how far the shift may go from that of the reference, in shares of it
BLOWN_UP = 1e6  # what an inverse may be multiplied by when columns leave


class Path:
    """The states that changes lead through, from the present one, 0, to the last: n, drift, kind and shift of each."""

    def __init__(self, now: GaussianState, made: Changes | None) -> None:
        self.made, more, few = made, made.more if made else [], 4 * len(now.drift)
        self.n = [*accumulate(more, initial=now.count)]
        self.many = [*accumulate((taken > 2 for taken in made.taken) if made else [], operator.or_, initial=now.many)]
        drift, trace = now.drift[None], now.scatter.trace()[None]
        if made:
            drift = torch.cat([drift, now.drift + made.drift.cumsum(0)])
            grown = trace.new_zeros(len(more)).index_add(0, made.of, made.weight * made.column.square().sum(1))
            trace = torch.cat([trace, trace + grown.cumsum(0)])
            self.start = torch.searchsorted(made.of, torch.arange(len(more) + 1).to(made.of)).tolist()
        self.drift, drift2 = drift, drift.square().sum(1)
        self.apart = (drift2 > 1e-20 * trace).tolist()  # less is rounding
        left = [t - d / max(n, 1) for t, d, n in zip(trace.tolist(), drift2.tolist(), self.n, strict=True)]
        self.kind = [
            "round" if not m else "still" if t < 1e-9 else "ridge" if n <= few else "plain"
            for t, n, m in zip(left, self.n, self.many, strict=True)
        ]
        self.kind[0] = now.kind
        ridge = [kind == "ridge" for kind in self.kind]
        self.shift = [t / (n - 1) if r else 0.0 for t, n, r in zip(left, self.n, ridge, strict=True)]
        self.scale = [len(now.drift) if r else n - 1 for n, r in zip(self.n, ridge, strict=True)]

    def parts(self, first: int) -> Iterator[tuple[int, int]]:
        """First and last state, of one kind and not too many, from the `first` that anybody asks for."""
        states = range(min(first, 1), len(self.n))
        for _, same in groupby(states, key=lambda s: self.kind[s]):
            held = [*same]
            for i in range(0, len(held), TOGETHER):
                yield held[i], held[i : i + TOGETHER][-1]

    def columns(self, first: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
        """Columns of the changes that lead to these states, their weights, and the first state that has each."""
        if self.made is None:
            return self.drift[:0], self.drift[0, :0], torch.zeros(0, dtype=torch.long, device=self.drift.device)
        held = slice(self.start[max(first - 1, 0)], self.start[end])
        return self.made.column[held], self.made.weight[held], self.made.of[held] + 1


class Stretch:
    """Some states of one kind, and images that are answered at them.

    Attributes:
        column: of the scatter that its changes add, ``(R, D)``, and `weight` of each, ``(R,)``.
        means: the means before, and behind them the new ones, ``(C + M, D)``.
        current: which of these rows a class has in the end, where it changes.
        distances: of the images ``(B, D)``, each from the means of its state, ``(B, C)``.
    """

    def __init__(self, now: GaussianState, path: Path, first: int, end: int, x: Tensor, after: list[int]) -> None:
        self.now, self.path, self.end, self.kind, self.x, self.after = now, path, end, path.kind[end], x, after
        self.column, self.weight, self.since = path.columns(first, end)
        self.begun = max(first - 1, 0)
        self.labels, self.classes = path.made.label[self.begun : end] if path.made else [], len(now.means)
        self.means = now.rows[: self.classes + len(self.labels)]
        if path.made:
            self.means[self.classes :] = path.made.mean[self.begun : end]
        self.current = {label: self.classes + i for i, label in enumerate(self.labels)}
        self.states = sorted({*after})
        self.distances = self.chosen(self.answers()) if len(x) else x

    def chosen(self, far: Tensor) -> Tensor:
        """Of distances from all means, ``(B, C + M)``, those from each image's own, ``(B, C)``."""
        own, row, held, made = [], dict[int, int](), far[:, : self.classes], self.begun
        for b, s in enumerate(self.after):
            for made in range(made, s):  # noqa: B020 (it goes on where it was)
                row[self.labels[made - self.begun]] = self.classes + made - self.begun
            made = max(made, s)
            own += [(b, label, to) for label, to in row.items()]
        if own:
            b, label, to = torch.tensor(own).to(self.since).T
            held = held.clone()
            held[b, label] = far[b, to]
        return held

    def answers(self) -> Tensor:
        """Distances of the images from all means, ``(B, C + M)``."""
        if self.kind == "round":
            square = self.x.square().sum(1, keepdim=True) + self.means.square().sum(1)
            return self.x.shape[1] * (square - 2 * self.x @ self.means.T)
        if self.kind == "still" or self.now.rough or self.fails:
            return self.by_precision()
        return self.scales()[:, None] * self.by_series()

    def by_precision(self) -> Tensor:
        """With a matrix for each state."""
        out = []
        for s in self.states:
            w = self.weight * (self.since <= s)
            scatter, now = self.now.scatter + (w * self.column.T) @ self.column, self.path
            still = self.kind == "still"
            precision = self.now.last if still else solved(scatter, now.drift[s], now.n[s], self.kind)
            for row, at in zip(self.x, self.after, strict=True):
                if at == s:
                    off = row - self.means
                    out.append((off @ precision * off).sum(1))
        return torch.stack(out)

    def scales(self) -> Tensor:
        """What the inverse is multiplied by, for each image, ``(B,)``."""
        return self.x.new_tensor([self.path.scale[s] for s in self.after])

    @cached_property
    def factors(self) -> Tensor:
        """Of the powers of the reference at each state, ``(G, K)``."""
        shift = self.x.new_tensor([self.path.shift[s] for s in self.states])
        if not len(self.now.inverse):
            return 1 / shift[:, None]
        if self.kind == "plain":
            return torch.ones_like(shift)[:, None]
        far = self.now.shift - shift
        share = max([abs(s) for s in (far / self.now.shift).tolist()], default=0.0)
        terms = TERMS if len(self.column) else min(TERMS, 1 + ceil(log(RESIDUE) / log(max(share, 1e-12))))
        return far[:, None] ** torch.arange(terms).to(far)

    @cached_property
    def active(self) -> tuple[Tensor, Tensor]:
        """All columns, ``(R, D)``, and what each weighs at each state, ``(G, R)``."""
        drifts = [s for s in self.states if self.path.apart[s]]
        at = self.since.new_tensor(self.states)[:, None]
        less = self.x.new_tensor([[-1 / self.path.n[s] * (s == d) for d in drifts] for s in self.states])
        waiting = self.now.waiting_weight.expand(len(self.states), -1)
        weight = torch.cat([self.weight * (self.since <= at), waiting, less.view(len(self.states), len(drifts))], 1)
        return torch.cat([self.column, self.now.waiting, self.path.drift[drifts]]), weight

    @cached_property
    def powers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Columns ``(K, R, D)``, images ``(K, B, D)`` and new means ``(K, M, D)`` under each power of the reference."""
        columns = self.active[0]
        under = [torch.cat([columns, self.x, self.means[self.classes :]])]
        if len(self.now.inverse):
            under = [*accumulate(range(self.factors.shape[1]), lambda z, _: z @ self.now.inverse, initial=under[0])][1:]
        return torch.stack(under).split([len(columns), len(self.x), len(self.labels)], 1)

    @cached_property
    def squares(self) -> Tensor:
        """Of all means, under each power, ``(K, C + M)``."""
        if not len(self.now.inverse):
            return self.means.square().sum(1)[None]
        fresh = self.powers[2]
        return torch.cat([self.now.series[: len(fresh)], (fresh * self.means[self.classes :]).sum(2)], 1)

    @cached_property
    def crossed(self) -> Tensor:
        """Columns with all means under each power, ``(K, R, C + M)``."""
        return self.powers[0] @ self.means.T

    @cached_property
    def solved(self) -> Tensor:
        """Inverse of what the columns' weights at each state make of the identity, ``(G, R, R)``."""
        columns, weight = self.active
        among = torch.einsum("gk,krc->grc", self.factors, self.powers[0] @ columns.T)
        return torch.linalg.inv_ex(torch.eye(len(columns)).to(among) + among * weight[:, None]).inverse

    @cached_property
    def fails(self) -> bool:
        """Whether what leaves takes a dimension with it, so that there is no inverse at some state."""
        return self.kind == "plain" and bool(len(self.column)) and not float(self.solved.abs().max()) < BLOWN_UP

    def by_series(self) -> Tensor:
        """With Woodbury's identity at each state, and the series in its shift."""
        columns, weight = self.active
        under_x = self.powers[1]
        f, r, at = self.factors, len(columns), self.since.new_tensor([self.states.index(s) for s in self.after])
        own = f[at].T[..., None]  # (K, B, 1)
        x = (own * under_x).sum(0)  # (B, D)
        far = (x * self.x).sum(1, keepdim=True) - 2 * x @ self.means.T + (f @ self.squares)[at]
        if not r:
            return far
        core = weight[..., None] * self.solved  # (G, R, R)
        y = x @ columns.T  # (B, R)
        z = (y[:, None] @ core[at])[:, 0]
        if self.kind == "plain":  # the same for all states
            h = self.crossed[0]
            less, cross = (h * (core.flatten(0, 1) @ h).view(-1, *h.shape)).sum(1), z @ h
        else:
            h = torch.einsum("gk,krc->grc", f, self.crossed)
            less, cross = (h * (core @ h)).sum(1), (z[:, None] @ h[at])[:, 0]
        return far - (z * y).sum(1, keepdim=True) + 2 * cross - less[at]

    def fold(self, inverse: Tensor, series: Tensor) -> None:
        """Take the columns into the reference, and into the squares of the means, in the end, under its powers."""
        column, terms = self.column, len(self.powers[0])
        under = self.powers[0][:, : len(column)]
        h, among, y = self.crossed[:, : len(column)], under @ column.T, under[0]
        core = self.weight[:, None] * torch.linalg.inv(torch.eye(len(column)).to(h) + among[0] * self.weight)
        core, lead, squares = (core + core.T) / 2, list[Tensor](), self.squares.clone()
        for k in range(terms):  # the series' product of h, core and h, term by term
            lead.append(core @ -sum((among[i] @ lead[k - i] for i in range(1, k + 1)), h[k]))
            squares[k] += sum((h[i] * lead[k - i]).sum(0) for i in range(k + 1))
        squares[:, [*self.current]] = squares[:, [*self.current.values()]]
        series[:terms] = squares[:, : self.classes]
        inverse.addmm_(y.T @ core, y, alpha=-1)
