"""Labels that travel over a graph of class embeddings, shots and the test images so far, which grows with each image.

Source: Li et al., Efficient and Context-Aware Label Propagation for Zero-/Few-Shot Training-Free Adaptation of
Vision-Language Model, arXiv:2412.18303.
Deviations: the released code enters each query twice and reads the second, which then leaves the graph again; its list
of an early image's neighbours is too short to replace the ones that leave; and edges with a negative cosine weigh as
much as positive ones, by the even power. ``as_released=True`` does all three; otherwise each query enters once, lists
are exact, and negative edges have no weight. As in the release, similarities are re-weighted on the side of
the older image, by the variance of the class embeddings, or, towards shots, on the side of the query, by the inverse
variance of the shots (which the release swaps where two sets happen to have one size); an image links to itself; and
an earlier image starts from a fifth of its best score so far. Scores are small and not calibrated.
"""

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pooled, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Share, Size, Steps, Weight
from adaptkit.methods.graph import knn
from adaptkit.methods.label_steps import label_steps
from adaptkit.methods.ops import row_variance

NONE = -1.0  # similarity of a neighbour that is none


class ECALP(ZeroShot):
    """Propagates labels over a graph of classes, shots and the test images so far."""

    scope = "stream"

    shots: bool = True  # whether the support, if there is any, is part of the graph
    k_text: Size = 3  # neighbours of an image among the classes
    k_image: Size = 8  # among the images before it and itself
    k_shot: Size = 8  # among the shots
    gamma: Weight = 10.0  # exponent of similarities
    alpha: Share = 1.0  # how far labels travel; the rest stays with the scores from before
    iterations: Steps = 3
    as_released: bool = False  # with the slips above

    def support_needs(self):
        return {"x": Pooled()} if self.shots else {}

    def fit(self, task):
        super().fit(task)
        count, classes = len(task.support) if self.shots else 0, torch.arange(len(self.text)).to(self.text.device)
        self.shot = nn.Buffer(task.support.x if count else self.text[:0])  # (S, D)
        self.label = nn.Buffer(torch.cat([classes, task.support.labels[:count]]))  # of the nodes given, (C + S,)
        self.weight = nn.Buffer(row_variance(self.text))  # of dimensions between images, (D,)
        spread = self.shot.var(0) if count > 1 else torch.ones_like(self.weight)
        self.shot_weight = nn.Buffer(1 / spread.clamp_min(1e-12))  # between images and shots
        self.room, self.seen = nn.Buffer(self.text[:0]), 0  # test images, re-weighted, and room for more; how many
        self.given, self.given_to = edges(self.text, min(self.k_text, len(classes)) + min(self.k_shot, count))
        self.near, self.near_to = edges(self.text, 0)  # the same number for each image
        self.best, self.best_to = edges(self.text, 1)  # the best score of each test image and its class

    def forward(self, batch):
        self.link(batch.x.expand(1 + self.as_released, -1))
        scores = self.propagate()  # (N, C)
        self.best, self.best_to = scores.max(1, keepdim=True)
        if self.as_released:
            self.seen -= 1
            for name in ("given", "given_to", "near", "near_to", "best", "best_to"):
                setattr(self, name, getattr(self, name)[:-1])
            self.near = self.near.masked_fill(self.near_to == self.seen, NONE)
        return scores[-1:]

    def link(self, x):
        """Enter one image, in one or two copies ``(M, D)``, with its edges to classes, shots and images."""
        to_text, to_shot = knn(x, self.text, self.k_text), knn(unit(x * self.shot_weight), self.shot, self.k_shot)
        self.given = torch.cat([self.given, torch.cat([to_text[0], to_shot[0]], 1)])
        self.given_to = torch.cat([self.given_to, torch.cat([to_text[1], to_shot[1] + len(self.text)], 1)])
        old, self.seen = self.seen, self.seen + len(x)
        if self.seen > len(self.room):
            self.room = F.pad(self.room, (0, 0, 0, 64 + old))
        self.room[old : self.seen] = unit(x * self.weight)
        ids, similarity = torch.arange(self.seen).to(self.given_to), self.room[: self.seen] @ x.T  # of N + M, to M
        full = self.near.shape[1] == self.k_image and not self.as_released  # lists change where it is nearer
        rows = (similarity[:old, 0] > self.near[:, -1]).nonzero()[:, 0] if full else slice(None)
        near, to = torch.cat([self.near[rows], similarity[:old][rows]], 1), self.near_to[rows]
        near, to = self.nearest(near, torch.cat([to, ids[old:].expand(len(to), -1)], 1), old)
        fresh, fresh_to = self.nearest(similarity.T, ids.expand(len(x), -1), old)
        if full:
            self.near[rows], self.near_to[rows] = near, to
            near, to = self.near, self.near_to
        self.near, self.near_to = torch.cat([near, fresh]), torch.cat([to, fresh_to])

    def nearest(self, similarity, to, old):
        """The best of each row, largest first; ties as in the release, whose lists grow with the graph."""
        k = self.k_image
        if self.as_released:
            k = min(k, old + 2)
            k += 2 if old > k + 1 else 1 if old == k + 1 else 0
        best = similarity.topk(min(k, similarity.shape[1]))
        return best.values, to.gather(1, best.indices)

    def propagate(self):
        """Scores of all test images, ``(N, C)``."""
        n, nodes, split = self.seen, len(self.label), self.given.shape[1]
        k = min(self.k_image, n)
        similarity = torch.cat([self.given, self.near[:, :k]], 1)
        to = torch.cat([self.given_to, self.near_to[:, :k] + nodes], 1)  # nodes: classes, shots, test images
        w = (similarity if self.as_released else similarity.clamp_min(0)) ** self.gamma
        w = torch.where(similarity == NONE, 0, w)
        degree = F.pad(w.sum(1), (nodes, 0)).index_add_(0, to.flatten(), w.flatten())
        root = 1 / (degree.sqrt() + 1e-6)
        w = w * root[nodes:, None] * root[to]  # D^-1/2 W D^-1/2
        y_given = w.new_zeros(n, len(self.text)).scatter_add_(1, self.label[to[:, :split]], w[:, :split])
        start, links = (self.best[:, 0] / 5, self.best_to[:, 0]), (to[:, split:] - nodes, w[:, split:])
        return label_steps(y_given, *links, start, self.alpha, self.iterations)


def edges(like, width):
    """Two buffers without rows: similarities and nodes."""
    return nn.Buffer(like.new_zeros(0, width)), nn.Buffer(torch.zeros(0, width, dtype=torch.long, device=like.device))


@hookimpl
def methods():
    return {"ecalp": ECALP}
