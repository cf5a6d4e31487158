"""A Gaussian mixture over all queries at once, held to their neighbours and to any method's answers.

Source: Zanella et al., Boosting Vision-Language Models with Transduction, arXiv:2406.01837. Names as in the paper.
Deviations: gamma is chosen by transduction over the validation images; the release gives each the answer of its nearest
query, and starts each gamma where the last one ended. Given probabilities, the release overwrites them by z; with
shots, it mixes up the rows of affinities and assignments, and skips each shot's nearest query: ``as_released=True``.
"""

import torch

from adaptkit import OverBase, Pooled, hookimpl, predict, unit
from adaptkit.io.ranges import Count, Positive, Size, Steps, Weight
from adaptkit.methods.graph import NIL, Graph, knn, smoothed
from adaptkit.methods.ops import one_hot


class TransCLIP(OverBase):
    """A Gaussian mixture over all queries, held to neighbours and to a base's answers.

    Without labels, over zero-shot or over whatever `base` has learned. The logits are log-probabilities.
    """

    scope = "set"

    lam: Weight = 1.0  # trust in the base's answers, lambda
    tau: Positive = 50.0  # temperature of the Gaussian log-likelihood
    neighbours: Count = 3  # of each query, among the queries
    confident: Size = 8  # queries that a class's first mean is made from
    iterations: Steps = 10
    sweeps: Steps = 5  # updates of z in each iteration
    as_released: bool = False  # with the slips above

    gamma = 0.0  # weight of shots, of which there are none here

    def needs(self):
        return {"x": Pooled()}

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
        order = torch.arange(len(x)).to(x.device)
        if not self.as_released:  # neighbours have classes in common: side by side, their rows are in caches
            order = y_hat.argmax(1).argsort(stable=True)
        x, y_hat, log_z, (mu, var) = x[order], y_hat[order], mixture[0][order].to(x), mixture[1:]
        edges, room = self.affinity(x), [x.new_empty(y_hat.shape) for _ in range(2)]  # new memory costs more than sums
        for _ in range(self.iterations):
            log_z = self.assign(x, y_hat, (log_z, mu, var), edges, room)
            mu, var = self.estimate(x, log_z, room[0])
        return self.assign(x, y_hat, (log_z, mu, var), edges, room)[order.argsort()], mu, var

    def affinity(self, x):
        """Cosines of each query to its nearest queries and to those it is nearest to, and the pull of the shots."""
        k, skip = min(self.neighbours, len(x) - 1), int(self.as_released)
        own = [part[:, 1:] for part in knn(x, x, k + 1)]  # the nearest is the query itself
        shots = [part[:, skip:] for part in knn(self.shots, x, k + skip)]
        cosine, to = (torch.cat(pair[:: -1 if self.as_released else 1]) for pair in zip(own, shots, strict=True))
        row = torch.arange(len(to)).to(to)[:, None].expand_as(to).flatten()
        edge, weight, query = torch.stack([row, to.flatten()]), cosine.flatten() / (2 * self.neighbours), row < len(x)
        both = torch.cat([edge[:, query], edge[:, query].flip(0)], 1), weight[query].repeat(2)
        pulled = edge[:, ~query].flip(0) - torch.tensor([[0], [len(x)]]).to(row)  # by the row of a shot
        return Graph(*both, len(x)), Graph(pulled, weight[~query], len(x)) @ self.labels

    def assign(self, x, y_hat, mixture, edges, room):
        """``z ~ y_hat^lambda exp(log-likelihood / tau + pull of the neighbours)``, for all queries at once.

        The mixture's assignments are written over, as is the room, two more tensors ``(N, C)``.
        """
        (z, mu, var), (graph, fixed), (own, new) = mixture, edges, room
        torch.mm(x, (mu / var).T, out=own)
        own.sub_(0.5 * (mu.square() / var).sum(1)).div_(self.tau).add_(fixed)  # less a term all classes share
        if self.as_released and not len(self.shots):  # the last answer in the place of zero-shot's
            for _ in range(self.sweeps):
                z = (graph @ z.clamp_min(NIL).exp_()).add_(own).add_(z, alpha=self.lam).log_softmax(-1)
            return z
        z, room[1] = smoothed(graph, own.add_(y_hat, alpha=self.lam), z, new, self.sweeps)
        return z

    def estimate(self, x, log_z, room):
        """Means and variance under the assignments, by products: no tensor is ``(N, C, D)``."""
        rows, shots = x, len(x) * self.gamma * self.tau / max(1, len(self.shots)) * self.labels  # weights times N
        top = torch.cat([log_z.amax(0)[None], shots.log()]).amax(0)
        share = torch.sub(log_z, top, out=room).clamp_min_(NIL).exp_()  # relative to a class's largest: one no query
        if len(shots):  # is likely in still has a mean
            rows, share = torch.cat([x, self.shots]), torch.cat([share, (shots.log() - top).clamp_min(NIL).exp()])
        scale, count, centre = top.exp(), share.sum(0), rows.mean(0)
        rows = rows - centre  # the same variance, without loss of digits
        sums = share.T @ rows  # (C, D)
        mu = unit(sums + count[:, None] * centre)
        means, mass = mu - centre, scale * count
        spread = (share @ scale) @ rows.square() - 2 * (means * sums).T @ scale + mass @ means.square()
        return mu, (spread / mass.sum()).clamp_min(1e-9)


class TransCLIPFewShot(TransCLIP):
    """A Gaussian mixture over all queries and the support, whose labels are held fixed."""

    lam: Weight = 0.5
    gamma: Weight = 0.01  # weight of the shots, tau times this in all where the queries weigh 1

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
