"""Labels propagated from class embeddings to images, in the space that is left once the texts' common part is gone.

Source: Hu et al., ReCLIP: Refine Contrastive Language Image Pre-Training with Source Free Domain Adaptation,
arXiv:2308.03793; its pseudo-labels, without the training of both towers that follows them.
Deviations: none known from the released code but for its half precision. Its solver stops after 20 steps of conjugate
gradients, far from convergence, so their number is part of the method, as it is of ours. Scores are not calibrated.
"""

import math

import torch
from torch import nn

from adaptkit import ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Share, Size, Steps, Weight
from adaptkit.methods.graph import knn
from adaptkit.methods.ops import class_sums


class ReCLIP(ZeroShot):
    """Propagates labels from classes to queries, once the texts' common part is removed."""

    scope = "set"

    k: Size = 20  # neighbours of a node, among classes and images alike
    alpha: Share = 0.99  # how far labels travel
    dims: Size = 768  # singular vectors of the class embeddings, at most, the first of which is left out
    steps: Steps = 20  # of conjugate gradients
    tolerance: Weight = 1e-6  # residual, beside the right-hand side, at which a class takes no further step

    def fit(self, task):
        super().fit(task)
        u = torch.linalg.svd(self.text.T, full_matrices=False).U  # (D, min(C, D))
        self.projection = nn.Buffer(u[:, 1 : self.dims] @ u[:, 1 : self.dims].T)  # (D, D)

    def forward(self, batch):
        nodes = unit(torch.cat([self.text, batch.x]) @ self.projection)  # (C + N, D)
        return self.propagate(self.graph(nodes))[len(self.text) :]

    def graph(self, nodes):
        """Normalised adjacency, sparse, symmetric, ``(C + N, C + N)``."""
        n = len(nodes)
        cosine, to = knn(nodes, nodes, self.k + 1)
        source = torch.arange(n).to(to)[:, None].expand_as(to)
        other = to != source
        other &= other.cumsum(1) <= self.k  # of equal images, a node itself may come late
        w, edge = (cosine[other] + 1) / 4, torch.stack([source[other], to[other]])  # half of each direction
        degree = w.new_zeros(n).index_add_(0, edge.flatten(), w.repeat(2))
        w = w * degree[edge[0]].rsqrt() * degree[edge[1]].rsqrt()  # D^-1/2 W D^-1/2
        return torch.sparse_coo_tensor(
            torch.cat([edge, edge.flip(0)], 1), w.repeat(2), (n, n), check_invariants=False
        ).coalesce()

    def propagate(self, graph):
        """``(I - alpha W)^-1`` applied to the classes' nodes, up to the steps' error, ``(C + N, C)``."""
        r = torch.eye(len(graph), len(self.text)).to(self.text)
        z, p, rr = torch.zeros_like(r), r.clone(), r.square().sum(0)
        enough = self.tolerance**2 * rr
        for _ in range(self.steps):
            q = p - self.alpha * (graph @ p)
            step = torch.where(rr > enough, rr / (p * q).sum(0), 0)
            z, r = z + step * p, r - step * q
            before, rr = rr, r.square().sum(0)
            p = r + rr / before.clamp_min(1e-30) * p
        return z

    def confidence(self, scores):
        """How sure each image's scores are, ``(N, C)`` to ``(N,)``: 1 less their entropy over that of guessing."""
        p = scores.clamp_min(0)
        p = p / p.sum(1, keepdim=True)
        return 1 + torch.xlogy(p, p).sum(1) / math.log(scores.shape[1])

    def centroids(self, x, labels):
        """Class embeddings for the next round, ``(C, D)``: unit-norm means over the texts and images of each label."""
        return unit(class_sums(torch.cat([self.text, x]), labels, len(self.text)))


@hookimpl
def methods():
    return {"re-clip": ReCLIP}
