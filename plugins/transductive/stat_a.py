"""A Gaussian mixture over all queries, each class anchored to its text the more, the fewer queries it seems to have.

Source: Zanella et al., Realistic Test-Time Adaptation of Vision-Language Models, arXiv:2501.03729. Names as in the
paper.
Deviations: the released code divides the first variance by the number of queries once in every 2500 of them; ours once.
Before its correction of April 2025 it left the determinants out of the likelihood. As in the release, the temperature
of both terms of the likelihood is TransCLIP's, 50.
"""

import torch

from adaptkit import ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Count, Positive, Steps, Weight
from adaptkit.methods.graph import NIL, Graph, knn, smoothed


class StatA(ZeroShot):
    """A Gaussian mixture over all queries, its rarer classes held closer to the text.

    For queries of few of the classes as for queries of all. The logits are log-probabilities.
    """

    scope = "set"

    alpha: Weight = 1.0  # queries that the anchor weighs as much as
    soft: bool = False  # whether a class's queries are counted by probability, not by best class
    lam: Weight = 1.0  # trust in the zero-shot answers
    pull: Weight = 1.0  # weight of the neighbours
    tau: Positive = 50.0  # temperature of the Gaussian log-likelihood
    neighbours: Count = 3  # of each query, among the queries
    iterations: Steps = 10
    sweeps: Steps = 5  # updates of z in each iteration

    def forward(self, batch):
        return self.solve(batch.x, self.zero_shot(batch.x).log_softmax(-1))[0]

    def solve(self, x, y_hat):
        """Log-assignments ``(N, C)``, unit-norm means and variances, ``(C, D)``, from zero-shot log-probabilities."""
        order = y_hat.argmax(1).argsort(stable=True)  # neighbours have classes in common: side by side, they are quick
        x, y_hat = x[order], y_hat[order]
        edges, room = self.affinity(x), [torch.empty_like(y_hat) for _ in range(2)]  # new memory costs more than sums
        centre = x.mean(0)  # the same variances, without loss of digits
        rows, likely = x - centre, y_hat.clamp_min(NIL).exp()
        start = self.spread(rows, likely, likely.T @ rows, self.text - centre).sum(0) / len(x)  # the anchor's, (D,)
        start = start.clamp_min(1e-9)
        log_z, mu, var = y_hat.clone(), self.text, start.expand_as(self.text)
        for _ in range(self.iterations):
            log_z = self.assign(x, y_hat, log_z, mu, var, edges, room)
            counts = log_z.clamp_min(NIL).exp().sum(0) if self.soft else log_z.argmax(1).bincount(minlength=len(mu))
            beta = (counts / (self.alpha + counts))[:, None]
            share = torch.sub(log_z, log_z.amax(0), out=room[0]).clamp_min_(NIL)
            share = share.softmax(0)  # so a class that none is likely in has a mean
            sums = share.T @ rows  # (C, D)
            mu = unit(beta * unit(sums + centre) + (1 - beta) * self.text)
            anchor = start + (self.text - mu).square()
            var = (beta * self.spread(rows, share, sums, mu - centre) + (1 - beta) * anchor).clamp_min(1e-9)
        return self.assign(x, y_hat, log_z, mu, var, edges, room)[order.argsort()], mu, var

    def affinity(self, x):
        """Pull of every query's nearest, and of those it is nearest to: their cosines, both ways at once."""
        k = max(1, self.neighbours)
        cosine, to = (part[:, 1:] for part in knn(x, x, self.neighbours + 1))  # the nearest is the query itself
        edge = torch.stack([torch.arange(len(to)).to(to)[:, None].expand_as(to).flatten(), to.flatten()])
        weight = self.pull / (2 * k) * cosine.flatten()
        return Graph(torch.cat([edge, edge.flip(0)], 1), weight.repeat(2), len(x))

    def assign(self, x, y_hat, z, mu, var, edges, room):
        """``z ~ y_hat^lambda exp((log-likelihood + pull of the neighbours) / tau)``, for all queries at once.

        `z`, logarithms, is written over, as is the room, two more tensors ``(N, C)``.
        """
        (own, new), scale = room, 1 / var  # (C, D)
        constants = (mu.square() * scale + var.log()).sum(1)  # the determinants differ, as the variances do
        torch.addmm(0.5 * constants, x.square(), 0.5 * scale.T, out=own).neg_().addmm_(x, (mu * scale).T)
        own.div_(self.tau).add_(y_hat, alpha=self.lam)
        z, room[1] = smoothed(edges, own, z, new, self.sweeps)
        return z

    def spread(self, rows, weight, sums, means):
        """Weighted sums ``(C, D)`` of squared distances to each mean, by products: no tensor is ``(N, C, D)``.

        Rows and means are less the rows' own mean; `sums` are the rows', as weighted.
        """
        return weight.T @ rows.square() - 2 * means * sums + weight.sum(0)[:, None] * means.square()


@hookimpl
def methods():
    return {"stat-a": StatA}
