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
from adaptkit.methods.graph import knn

NIL = -60.0  # the logarithm of nothing: the numbers further down, denormals, slow processors tenfold


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
        edges = self.affinity(x)
        start = self.spread(x, y_hat.clamp_min(NIL).exp(), self.text).sum(0) / len(x)  # the anchor's variance, (D,)
        log_z, mu, var = y_hat, self.text, start.expand_as(self.text)
        for _ in range(self.iterations):
            log_z = self.assign(x, y_hat, log_z, mu, var, edges)
            counts = log_z.clamp_min(NIL).exp().sum(0) if self.soft else log_z.argmax(1).bincount(minlength=len(mu))
            beta = (counts / (self.alpha + counts))[:, None]
            share = (log_z - log_z.amax(0)).clamp_min(NIL).softmax(0)  # so a class that none is likely in has a mean
            mu = unit(beta * unit(share.T @ x) + (1 - beta) * self.text)
            anchor = start + (self.text - mu).square()
            var = (beta * self.spread(x, share, mu) + (1 - beta) * anchor).clamp_min(1e-9)
        return self.assign(x, y_hat, log_z, mu, var, edges), mu, var

    def affinity(self, x):
        """Cosines of every query to its nearest, sparse ``(N, N)``, both ways at once."""
        cosine, to = (part[:, 1:] for part in knn(x, x, self.neighbours + 1))  # the nearest is the query itself
        edge = torch.stack([torch.arange(len(to)).to(to)[:, None].expand_as(to).flatten(), to.flatten()])
        both = torch.cat([edge, edge.flip(0)], 1), cosine.flatten().repeat(2)
        return torch.sparse_coo_tensor(*both, (len(x), len(x)), check_invariants=False).coalesce()

    def assign(self, x, y_hat, log_z, mu, var, edges):
        """``z ~ y_hat^lambda exp((log-likelihood + pull of the neighbours) / tau)``, for all queries at once."""
        scale = 1 / var  # (C, D)
        constants = (mu.square() * scale + var.log()).sum(1)  # the determinants differ, as the variances do
        likelihood = x @ (mu * scale).T - 0.5 * (x.square() @ scale.T + constants)
        for _ in range(self.sweeps):
            near = edges @ log_z.clamp_min(NIL).exp()
            log_z = (self.lam * y_hat + likelihood / self.tau + self.pull * near / (2 * self.neighbours)).log_softmax(
                -1
            )
        return log_z

    def spread(self, x, weight, mu):
        """Weighted sums ``(C, D)`` of squared distances to each mean, by products: no tensor is ``(N, C, D)``."""
        centre = x.mean(0)  # the same, without loss of digits
        rows, means = x - centre, mu - centre
        return weight.T @ rows.square() - 2 * means * (weight.T @ rows) + weight.sum(0)[:, None] * means.square()


@hookimpl
def methods():
    return {"stat-a": StatA}
