"""TIMO: images weigh the sentences about their class, and the sentences join the images of a Gaussian discriminant.

Source: Li et al., Text and Image Are Mutually Beneficial: Enhancing Training-Free Few-Shot Classification with CLIP,
arXiv:2412.11375. It is made for many sentences a class, e.g. a language model's; with one, only the second half acts.
Deviations: sentences beyond those that every class has are left out, as theirs. They give Flowers102 gamma 100 and
ImageNet 1, and there choose alpha on the test set, which cannot happen here. The logits are in units of the backbone's.
Without validation images ``timo-s`` is ``timo``.
"""

import torch
from torch import nn

from adaptkit import Pooled, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Share, Tries, Views, Weight
from adaptkit.methods.explore import choose
from adaptkit.methods.ops import class_sums
from adaptkit.methods.search import Linear


class TIMO(ZeroShot):
    """Zero-shot with sentences weighted by images, plus Gaussians fitted to both. No training."""

    alpha: Weight = 1000.0  # weight of the cosines against the Gaussians' log-posterior
    beta: Share = 0.5  # sentences that join the images of a class: from one (0) over each once (0.5) to each twice (1)
    gamma: Weight = 50.0  # how sharply images choose among sentences
    views: Views = 10  # random views per support image, each a sample of its own
    augment: str = "crop-flip"

    def support_needs(self):
        return {"views": Pooled(views=self.views, augment=self.augment, unit=False)}

    def grid(self):
        return {"alpha": tuple(10.0**i for i in range(-4, 5))}

    def fit(self, task):
        super().fit(task)
        views, labels, classes = task.support.views, task.support.labels, len(self.text)  # (S, V, D), (S,)
        counts = labels.bincount(minlength=classes)
        if not counts.all():
            raise ValueError(f"timo must have support images of every class; got none of class {int(counts.argmin())}")
        fewest = min(len(rows) for rows in task.text_per_prompt)
        sentences = torch.stack([rows[:fewest] for rows in task.text_per_prompt])  # (C, P, D)
        visual = unit(class_sums(unit(views.mean(1)), labels, classes))  # (C, D)
        match = torch.einsum("cpd,cd->cp", sentences, visual)
        best = match.argsort(dim=1, descending=True, stable=True)
        self.match = nn.Buffer(match.gather(1, best))  # (C, P), best first
        self.sentences = nn.Buffer(sentences.gather(1, best[:, :, None].expand_as(sentences)))
        x = unit(views).flatten(0, 1).double()
        self.sums = nn.Buffer(class_sums(x, labels.repeat_interleave(views.shape[1]), classes))  # (C, D)
        self.counts, self.moment = nn.Buffer(counts * views.shape[1]), nn.Buffer(x.T @ x)  # (C,), (D, D)
        self.choose(task.val)
        self.guided = nn.Buffer(self.guide(self.gamma))
        self.weight, self.bias = map(nn.Buffer, self.gaussian(self.beta))

    def choose(self, val):
        """Nothing is chosen before alpha."""

    def guide(self, gamma):
        """Class text as the images see it, ``(C, D)``."""
        weights = (gamma * unit(self.match)).softmax(-1)
        return unit(torch.einsum("cp,cpd->cd", weights, self.sentences))

    def gaussian(self, beta):
        """Weight ``(C, D)`` and bias ``(C,)`` of a discriminant whose samples are images, and sentences times match."""
        sentences = (self.match[:, :, None] * self.sentences).repeat(1, 2, 1).double()
        added = sentences[:, : int(1 + beta * (sentences.shape[1] - 1) + 1e-6)]  # (C, beta, D)
        counts, rows = self.counts + added.shape[1], added.flatten(0, 1)
        means = (self.sums + added.sum(1)) / counts[:, None]
        scatter = self.moment + rows.T @ rows - (counts * means.T) @ means  # N - 1 times the covariance
        trace = scatter.trace() / (counts.sum() - 1)
        ridge = trace * torch.eye(len(scatter)).to(scatter)  # Kubokawa and Srivastava, as in GDA
        weight = len(scatter) * torch.cholesky_solve(means.T, torch.linalg.cholesky(scatter + ridge)).T
        return weight.to(self.text), (-0.5 * (weight * means).sum(-1)).to(self.text)

    def refit(self, values):
        super().refit(values)
        if "gamma" in values:
            self.guided.copy_(self.guide(self.gamma))
        if "beta" in values:
            for buffer, value in zip((self.weight, self.bias), self.gaussian(self.beta), strict=True):
                buffer.copy_(value)

    def forward(self, batch):
        return self.mix(batch.x @ self.guided.T, batch.x @ self.weight.T + self.bias, self.alpha)

    def mix(self, cosines, gaussian, alpha):
        return self.backbone.logit_scale / 100 * (alpha * cosines + gaussian)

    def sweep(self, val):
        cosines, grid = val.x @ self.guided.T, self.grid()
        for beta in grid.get("beta", [self.beta]):
            weight, bias = self.gaussian(beta)
            scale = self.backbone.logit_scale / 100
            yield Linear(scale * (val.x @ weight.T + bias), {"alpha": scale * cosines})


class TIMOS(TIMO):
    """`TIMO` with its weights and number of sentences chosen on validation images."""

    search_steps: Tries = 10  # numbers of sentences tried, from one to each twice

    def grid(self):
        return {"beta": tuple(torch.linspace(0, 1, self.search_steps, dtype=torch.double).tolist()), **super().grid()}

    def choose(self, val):
        """Gamma: that of the re-weighted text that does best by itself."""
        if val is not None:
            gammas = [5.0 * i for i in range(1, 21)]
            self.gamma = choose(
                self, "gamma", gammas, lambda g: int((val.x @ self.guide(g).T).argmax(-1).eq(val.labels).sum())
            )


@hookimpl
def methods():
    return {"timo": TIMO, "timo-s": TIMOS}
