"""A Dirichlet distribution of zero-shot probabilities for each class, over all queries at once, that likes few classes.

Source: Martin et al., Transductive Zero-Shot and Few-Shot CLIP, arXiv:2405.18437. Names as in the paper; ``hard-`` are
its variants that assign each query to one class.
Deviations: the weight of the class proportions is C / `effective`; the release rounds it down, to nothing for fewer
classes: ``as_released=True``. For few-shot tasks it takes the true number of classes among the queries, which is not
known here, and has no answer for a class without mass; here, as in zero-shot, that class keeps its parameters. Double
precision. Classes that no cluster is matched with share what is left over.
Interactions: made for some 75 queries of few classes. Memory grows with the square of the number of classes.
"""

import math

import torch

from adaptkit import Pooled, ZeroShot, hookimpl
from adaptkit.io.ranges import Positive, Size, Steps
from adaptkit.methods.ops import class_sums, one_hot

TINY = 1e-15  # added to what a logarithm is taken of, as in the release
EMPTY = -10.0  # mean log-probability that stands for those of a class that has no query yet
LOOK = 50  # inner steps from one look at how far alpha still moves to the next
STILL = 1e-11  # squared relative change at which they end


class EMDirichlet(ZeroShot):
    """Dirichlet clusters of all queries' zero-shot probabilities, matched with classes.

    The logits are log-assignments.
    """

    scope = "set"

    temperature: Positive = 30.0  # from cosine to the logits whose softmax is what is modelled, T
    effective: Size = 5  # classes that a set of queries is thought to have: fewer, and they are pulled together more
    iterations: Steps = 20
    steps: Steps = 1000  # of the fixed point for alpha in each iteration, at most
    as_released: bool = False  # round the weight of the class proportions down

    hard = False  # whether each query is assigned to one class

    def fit(self, task):
        super().fit(task)
        self.register_buffer("shots", task.text.new_zeros(2, len(task.text), len(task.text)))  # see `solve`

    def simplex(self, x):
        """``(N, D)`` unit-norm embeddings to probabilities, ``(N, C)``."""
        return (self.temperature * x.double() @ self.text.T.double()).softmax(-1)

    def forward(self, batch):
        z = self.simplex(batch.x)
        log_u = self.solve(z)[0]
        return self.matched(z, log_u).to(batch.x)

    def solve(self, z):
        """Log-assignments ``(N, C)``, alpha ``(C, C)``, proportions' dual ``(C,)`` and changes of alpha ``(I,)``.

        Several sets of queries, ``(K, N, C)``, are solved side by side; the inner steps end for all of them at once.
        """
        z, share = z.double(), z.shape[-1] / self.effective
        weight, log_z = int(share) if self.as_released else share, (z + TINY).log()
        sums, counts = self.shots.double()[..., 0, :, :], self.shots.double()[..., 1, :, :1]
        u, log_u, moved = z, log_z, []
        alpha = z.new_ones(*z.shape[:-2], z.shape[-1], z.shape[-1])
        v = torch.zeros_like(z[..., 0, :])
        for _ in range(self.iterations):
            mass = u.sum(-2)[..., None] + counts  # (C, 1)
            mean = ((u.mT @ log_z + sums) / mass.clamp_min(TINY)).where(mass > TINY, EMPTY)
            before, alpha = alpha, self.majorised(alpha, mean).where(mass > TINY, alpha)
            moved.append(((alpha - before).norm(dim=(-2, -1)) / before.norm(dim=(-2, -1))).mean())
            v = (u.mean(-2) + TINY).log() + 1
            constant = alpha.sum(-1).lgamma() - alpha.lgamma().sum(-1)  # (C,)
            log_u = log_z @ (alpha - 1).mT + (constant + weight * v)[..., None, :]
            log_u = log_u.log_softmax(-1)
            u = one_hot(log_u.argmax(-1), z.shape[-1]).double() if self.hard else log_u.exp()
        return log_u, alpha, v, torch.stack(moved) if moved else z.new_zeros(0)

    def majorised(self, alpha, mean):
        """Alpha of greatest likelihood, from mean log-probabilities ``(C, C)``: majorised again and again."""
        for step in range(self.steps):
            slope = (alpha + 1).digamma()
            c = 2 * (alpha * slope - (alpha + 1).lgamma()) / alpha.square()  # the least curvature that majorises
            b = slope - alpha.sum(-1, keepdim=True).digamma() - mean - c * alpha
            new = (-b + (b.square() + 4 * c).sqrt()) / (2 * c)
            change, alpha = (new - alpha).square().sum() / alpha.square().sum(), new
            if step % LOOK == 0 and step and change < STILL:
                break
        return alpha

    def matched(self, z, log_u):
        """Log-assignments to classes: each cluster with a query goes to one class, by its mean probabilities."""
        from scipy.optimize import linear_sum_assignment

        cluster, count = log_u.argmax(-1), log_u.shape[-1]
        size = cluster.bincount(minlength=count)[:, None]
        means = class_sums(z, cluster, count) / size.clamp_min(1)  # (C, C)
        found, empty = (size > 0).nonzero()[:, 0], (size[:, 0] == 0).nonzero()[:, 0]
        places, classes = (torch.as_tensor(i).to(found) for i in linear_sum_assignment(-means[found].cpu().numpy()))
        rest = log_u[:, empty].logsumexp(-1, keepdim=True) - math.log(max(1, len(empty)))  # of classes without cluster
        return rest.expand(-1, count).index_copy(1, classes, log_u[:, found[places]])


class HardEMDirichlet(EMDirichlet):
    """Dirichlet clusters of zero-shot probabilities, each query in one alone."""

    iterations: Steps = 10

    hard = True


class EMDirichletFewShot(EMDirichlet):
    """Dirichlet clusters of zero-shot probabilities, of queries and labelled support."""

    def support_needs(self):
        return {"x": Pooled()}

    def fit(self, task):
        super().fit(task)
        task.require_support(type(self).__name__)
        self.shots = self.known(self.simplex(task.support.x), task.support.labels)

    def known(self, z, labels):
        """Sums of log-probabilities and numbers of rows of each class, ``(2, C, C)``, from ``(S, C)`` and ``(S,)``."""
        hot = one_hot(labels, z.shape[-1]).double()  # (S, C)
        sums = hot.T @ (z.double() + TINY).log()
        return torch.stack([sums, hot.sum(0)[:, None].expand_as(sums)])

    def matched(self, z, log_u):
        """Log-assignments as they are: labels say which class a cluster is."""
        return log_u


class HardEMDirichletFewShot(EMDirichletFewShot):
    """Dirichlet clusters of queries and support, each query in one alone."""

    iterations: Steps = 10

    hard = True


@hookimpl
def methods():
    return {
        "em-dirichlet": EMDirichlet,
        "hard-em-dirichlet": HardEMDirichlet,
        "em-dirichlet-fs": EMDirichletFewShot,
        "hard-em-dirichlet-fs": HardEMDirichletFewShot,
    }
