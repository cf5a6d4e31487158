"""Label propagation over a graph of images and class embeddings, from the class embeddings alone.

Source: Stojnic et al., Label Propagation for Zero-shot Classification with Vision-Language Models, arXiv:2404.04072.
Deviations: as in the released code, an image counts among its own k neighbours when the graph is built, so it links to
k - 1 others. With ``scaled=True`` the release clips the similarities of a new image before it scales them, not after,
as in the graph, so they may turn negative; ``as_released=True`` reproduces that. The inductive answer is read from one
solution per class, which is equal to the release's solution per image because the matrix is symmetric. Scores are small
and not calibrated: only their order means something.
"""

import torch
import torch.nn.functional as F

from adaptkit import ZeroShot, hookimpl
from adaptkit.io.ranges import Share, Size, Weight
from adaptkit.methods.graph import Graph, knn


class ZLaP(ZeroShot):
    """Propagates labels from the class embeddings over a graph of all queries."""

    scope = "set"

    k: Size = 5  # neighbours of an image, among images and among classes
    gamma: Weight = 5.0  # exponent of image-to-class similarities
    alpha: Share = 0.3  # how far labels travel, between 0 and 1
    scaled: bool = False  # bring similarities to [0, 1] first: for class embeddings that are not text, e.g. proxies
    as_released: bool = False

    def forward(self, batch):
        graph, _ = self.graph(batch.x)
        return self.solve(graph)[len(self.text) :]

    def neighbours(self, x, bank):
        """Similarities and nodes, ``(N, m)``: of the nearest classes, which are nodes 0 to C - 1, then images."""
        to_text, to_image = knn(x, self.text, self.k), knn(x, bank, self.k)
        return torch.cat([to_text[0], to_image[0]], 1), torch.cat([to_text[1], to_image[1] + len(self.text)], 1)

    def weigh(self, similarity, span, clip_first=False):
        """Edge weights: nothing below zero, image-to-class edges to the power gamma."""
        if clip_first:
            similarity = similarity.clamp_min(0)
        weight = (similarity - span[0]) / (span[1] - span[0])
        if not clip_first:
            weight = weight.clamp_min(0)
        classes = min(self.k, len(self.text))
        return torch.cat([weight[:, :classes] ** self.gamma, weight[:, classes:]], 1)

    def graph(self, x):
        """Normalised adjacency ``S`` of classes and images, ``(C + N, C + N)``, and the span of similarities."""
        similarity, to = self.neighbours(x, x)
        span = torch.stack([similarity.min(), similarity.max()]) if self.scaled else torch.tensor([0.0, 1.0]).to(x)
        size = len(self.text) + len(x)
        source = torch.arange(len(self.text), size).to(to)[:, None].expand_as(to)
        other = to != source
        edge = torch.stack([source[other], to[other]])  # (2, E)
        weight = self.weigh(similarity, span)[other]
        degree = torch.zeros(size).to(x).index_add_(0, edge.flatten(), weight.repeat(2))
        root = torch.where(degree > 0, degree, 1).rsqrt()
        weight = weight * root[edge[0]] * root[edge[1]]  # D^-1/2 (A + A^T) D^-1/2
        return Graph(torch.cat([edge, edge.flip(0)], 1), weight.repeat(2), size), span

    def solve(self, graph, room=2**20):
        """Columns of ``(I - alpha S)^-1`` that belong to the classes, ``(C + N, C)``, a few at a time, for caches."""
        columns = torch.arange(len(self.text)).to(graph.to).split(max(16, room // len(graph)))
        out = graph.weight.new_empty(len(graph), len(self.text))
        for c in columns:
            y = out.new_zeros(len(graph), len(c))
            y[c, c - c[0]] = 1
            out[:, c[0] : c[-1] + 1] = conjugate_gradients(lambda f: f - self.alpha * (graph @ f), y)
        return out


class ZLaPInductive(ZLaP):
    """Propagates labels over a graph of unlabelled images, where queries ask neighbours.

    The unlabelled pool is the graph; an image is answered by its neighbours there and never enters it.
    """

    scope = "sample"

    sparse: bool = False  # of each node keep only its best class: C times less to hold, nearly the same answers

    def pool_needs(self):
        return self.needs()

    def fit(self, task):
        super().fit(task)
        self.register_buffer("bank", task.require_pool("zlap-inductive").x)  # (N, D)
        graph, span = self.graph(self.bank)
        reach = self.solve(graph)  # (C + N, C)
        self.register_buffer("span", span)
        best = reach.max(1, keepdim=True) if self.sparse else (reach, torch.arange(len(self.text)).to(reach.device))
        self.register_buffer("reach", best[0])
        self.register_buffer("label", best[1])

    def forward(self, batch):
        similarity, to = self.neighbours(batch.x, self.bank)
        weight = self.weigh(similarity, self.span, clip_first=self.as_released)
        if not self.sparse:
            return F.embedding_bag(to, self.reach, per_sample_weights=weight, mode="sum")
        scores = torch.zeros(len(to), len(self.text)).to(weight)
        return scores.scatter_add_(1, self.label[to][..., 0], weight * self.reach[to][..., 0])


def conjugate_gradients(times, y, tolerance=1e-6, steps=50):
    """Solve ``times(f) = y`` for every column at once; a column rests when its residual is small beside its `y`."""
    f, r, p = torch.zeros_like(y), y.clone(), y.clone()
    rr = r.square().sum(0)
    enough = tolerance**2 * rr
    for _ in range(steps):
        active = rr > enough
        if not active.any():
            break
        q = times(p)
        step = torch.where(active, rr / (p * q).sum(0), 0)
        f, r = f + step * p, r - step * q
        before, rr = rr, r.square().sum(0)
        p = r + torch.where(active, rr / before, 0) * p  # one that rests has 0 / 0
    return f


@hookimpl
def methods():
    return {"zlap": ZLaP, "zlap-inductive": ZLaPInductive}
