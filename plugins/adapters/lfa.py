"""LFA: one linear map aligns image embeddings with class embeddings, solved first and then refined by ranking.

Source: Ouali et al., Black Box Few-Shot Adaptation for Vision-Language Models, arXiv:2304.01752.
Deviations: embeddings are of the plain image; the release may take five crops. Where the support does not span the
space, the orthogonal map is not unique; ours is the one nearest to the identity, the release's is arbitrary. One set
of splits judges every beta; the release draws others for each. Labels are given; its unlabelled form is not here.
"""

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Schedule, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Positive, Share, Size, Tries, Weight


class LFA(ZeroShot):
    """One linear map from images to class embeddings, solved, then refined by ranking.

    ``unit(x W)`` against the class embeddings.
    """

    betas: Tries = 25  # values from 0, the orthogonal map, to 1, the identity; one is chosen on splits of the support
    splits: Size = 3  # of four fifths to solve on and a fifth to judge by
    neighbours: Size = 3  # nearest classes that an embedding is ranked against
    margin: Positive = 4.0  # a class's margin is its cosine distance from the right one, divided by this
    share: Share = 0.75  # of the support in a step
    noise: Weight = 0.035  # standard deviation, added in half of the steps
    dropout: Share = 0.05  # of coordinates, in half of the steps
    schedule: Schedule = Schedule(
        steps=200, lr=5e-4, batch_size=2**20, optimizer="adamw", weight_decay=5e-4, final_lr=1e-7
    )

    def support_needs(self):
        return self.needs()

    def fit(self, task):
        super().fit(task)
        x, labels, text = task.support.x, task.support.labels, self.text
        eye, betas = torch.eye(x.shape[1]).to(x), torch.linspace(0, 1, self.betas).tolist()
        right = torch.zeros(self.betas)
        for _ in range(self.splits):
            held, rest = torch.randperm(len(x)).to(x.device).tensor_split([len(x) - int(0.8 * len(x))])
            solved = procrustes(x[rest], text[labels[rest]]) if len(rest) else eye
            plain, turned = x[held] @ text.T, x[held] @ solved @ text.T  # a map between answers between them
            for i, beta in enumerate(betas):
                right[i] += (torch.lerp(turned, plain, beta).argmax(-1) == labels[held]).sum().cpu()
        beta = betas[int(right.argmax())]
        self.map = nn.Parameter(torch.lerp(procrustes(x, text[labels]), eye, beta))  # (D, D)

    def retarget(self, task):
        super().fit(task)  # what is learned knows no class

    def forward(self, batch):
        return self.zero_shot(unit(batch.x @ self.map))

    def loss(self, batch):
        x, labels = batch.x, batch.labels
        rows = torch.randperm(len(x))[: max(1, int(self.share * len(x)))].to(x.device)
        x, labels = x[rows], labels[rows]
        if torch.rand(()) > 0.5:
            x = x + self.noise * torch.randn(x.shape).to(x)
        if torch.rand(()) > 0.5:
            x = F.dropout(x, self.dropout)
        return self.ranking(x @ self.map, labels)

    def ranking(self, x, labels):
        """Mean excess of the distance to the right class over those to the nearest, by their margins."""
        x, k = unit(x), min(self.neighbours, len(self.text))
        with torch.no_grad():  # in parts: of all classes only the order counts
            nearest = torch.cat([(rows @ self.text.T).topk(k).indices for rows in x.split(1024)])  # (B, k)
        rows = self.text[torch.cat([labels[:, None], nearest], 1)]  # the right class first, (B, 1 + k, D)
        distances = torch.linalg.vector_norm(x[:, None] - rows, dim=-1)
        margins = (1 - (rows * rows[:, :1]).sum(-1)) / self.margin  # 0 for the right class itself
        return F.relu(distances[:, :1] + margins[:, 1:] - distances[:, 1:]).mean()


def procrustes(x, y):
    """The orthogonal map from rows of `x` to those of `y`, nearest to the identity where they leave it open."""
    u, s, v = torch.linalg.svd(x.double().T @ y.double())
    rank = int((s > 1e-9 * s[0]).sum())
    a, _, b = torch.linalg.svd(u[:, rank:].T @ v[rank:].T)  # what neither spans is turned as little as it can be
    return (u[:, :rank] @ v[:rank] + u[:, rank:] @ a @ b @ v[rank:]).to(x)


@hookimpl
def methods():
    return {"lfa": LFA}
