"""A Gaussian mixture over all queries at once, held to their neighbours and to any method's answers.

Source: Zanella et al., Boosting Vision-Language Models with Transduction, arXiv:2406.01837. Names as in the paper.
Deviations: gamma is chosen by transduction over the validation images; the release gives each the answer of its nearest
query, and starts each gamma where the last one ended. Given probabilities, the release overwrites them by z; with
shots, it mixes up the rows of affinities and assignments, and skips each shot's nearest query: ``as_released=True``.
"""

import math
from dataclasses import field

import torch

from adaptkit import Method, Pooled, ZeroShot, hookimpl, predict, unit
from adaptkit.ops import knn, one_hot

NIL = -60.0  # the logarithm of nothing: the numbers further down, denormals, slow processors tenfold


class TransCLIP(Method):
    """Without labels, over zero-shot or over whatever `base` has learned. The logits are log-probabilities."""

    scope = "set"

    base: Method = field(default_factory=ZeroShot)
    lam: float = 1.0  # trust in the base's answers, lambda
    tau: float = 50.0  # temperature of the Gaussian log-likelihood
    neighbours: int = 3  # of each query, among the queries
    confident: int = 8  # queries that a class's first mean is made from
    iterations: int = 10
    sweeps: int = 5  # updates of z in each iteration
    as_released: bool = False  # with the slips above

    gamma = 0.0  # weight of shots, of which there are none here

    def support_needs(self):
        return {}

    def fit(self, task):
        self.register_buffer("shots", task.text[:0])  # (S, D); S is 0 without labels
        self.register_buffer("labels", task.text.new_zeros(0, len(task.text)))  # (S, C), one-hot

    def forward(self, batch):
        y_hat = predict(self.base, batch).log_softmax(-1)
        return self.solve(batch.x, y_hat, self.start(batch.x, y_hat))[0]

    def start(self, x, y_hat):
        """Log-assignments ``(N, C)``, unit-norm means ``(C, D)`` and one variance ``(D,)``, from log-probabilities."""
        top = y_hat.topk(min(self.confident, len(x)), 0)  # (8, C)
        mu = torch.einsum("kc,kcd->cd", top.values.softmax(0), x[top.indices])
        return y_hat, unit(mu), torch.full_like(x[0], 1 / x.shape[1])

    def solve(self, x, y_hat, mixture):
        """Update z, then means and variance, in turn; and z once more. A mixture is what `start` returns."""
        edges = self.affinity(x)
        for _ in range(self.iterations):
            log_z = self.assign(x, y_hat, mixture, edges)
            mixture = log_z, *self.estimate(x, log_z)
        return self.assign(x, y_hat, mixture, edges), *mixture[1:]

    def affinity(self, x):
        """Cosines of every query, then of every shot, to its nearest queries, sparse ``(N + S, N)``; and transposed."""
        k, skip = min(self.neighbours, len(x) - 1), int(self.as_released)
        own = [part[:, 1:] for part in knn(x, x, k + 1)]  # the nearest is the query itself
        shots = [part[:, skip:] for part in knn(self.shots, x, k + skip)]
        cosine, to = (torch.cat(pair[:: -1 if self.as_released else 1]) for pair in zip(own, shots, strict=True))
        edges = torch.stack([torch.arange(len(to)).to(to)[:, None].expand_as(to).flatten(), to.flatten()])
        w = torch.sparse_coo_tensor(edges, cosine.flatten(), (len(to), len(x)), check_invariants=False).coalesce()
        return w, w.T.coalesce()

    def assign(self, x, y_hat, mixture, edges):
        """``z ~ y_hat^lambda exp(log-likelihood / tau + pull of the neighbours)``, for all queries at once."""
        log_z, mu, var = mixture
        likelihood = (x @ (mu / var).T - 0.5 * (mu.square() / var).sum(1)) / self.tau  # less a term all classes share
        for _ in range(self.sweeps):
            if self.as_released and not len(self.shots):
                y_hat = log_z
            z = log_z.clamp_min(NIL).exp()
            pull = edges[1] @ torch.cat([z, self.labels]) + (edges[0] @ z)[: len(x)]
            log_z = (self.lam * y_hat + likelihood + pull / (2 * self.neighbours)).log_softmax(-1)
        return log_z

    def estimate(self, x, log_z):
        """Means and variance under the assignments, by products: no tensor is ``(N, C, D)``."""
        rows = torch.cat([x, self.shots])  # (N + S, D)
        shots = self.gamma * self.tau / max(1, len(self.shots)) * self.labels
        log_w = torch.cat([log_z - math.log(len(x)), shots.log()])  # (N + S, C)
        w, share = log_w.clamp_min(NIL).exp(), (log_w - log_w.amax(0)).clamp_min(NIL).softmax(0)
        mu, centre = unit(share.T @ rows), rows.mean(0)  # by shares: a class no query is likely in still has a mean
        rows, means = rows - centre, mu - centre  # the same variance, without loss of digits
        spread = w.sum(1) @ rows.square() - 2 * (means * (w.T @ rows)).sum(0) + w.sum(0) @ means.square()
        return mu, (spread / w.sum()).clamp_min(1e-9)


class TransCLIPFewShot(TransCLIP):
    """With the support's labels held fixed."""

    lam: float = 0.5
    gamma: float = 0.01  # weight of the shots, tau times this in all where the queries weigh 1

    def support_needs(self):
        return {"x": Pooled()}

    def grid(self):
        return {"gamma": (0.002, 0.01, 0.02, 0.2)}

    def fit(self, task):
        labels = one_hot(task.support.labels, len(task.classnames))
        if not labels.any(0).all():
            raise ValueError(f"support must have images of every class; got none of class {labels.sum(0).argmin()}")
        self.register_buffer("shots", task.support.x)
        self.register_buffer("labels", labels)

    def start(self, x, y_hat):
        return y_hat, unit(self.labels.T @ self.shots), torch.full_like(x[0], 1 / x.shape[1])


@hookimpl
def methods():
    return {"trans-clip": TransCLIP, "trans-clip-fs": TransCLIPFewShot}
