"""ProKeR: kernel ridge regression of what the zero-shot classifier gets wrong on the support images.

Source: Bendou et al., ProKeR: A Kernel Perspective on Few-Shot Adaptation of Large Vision-Language Models,
arXiv:2501.11175. The default beta and lambda are those the authors found on ImageNet with 4 shots.
Deviations: the regression lives on cosines, as theirs; its answers are multiplied by the backbone's logit scale at the
end, so that their softmax means something. Their ranges of beta and lambda differ between datasets; the defaults are
their first. Cholesky in double precision stands for their LU. ``proker-clap`` is their training form: it learns a head
as CLAP does (Silva-Rodriguez et al., arXiv:2312.12730) while the regression is solved for it. Its code was not at hand,
so that the schedule, CLAP's, and the gradient, which passes the solution, could not be checked.
A view of an image is a row of its own, so ten views of 16 shots of ImageNet are 160,000 rows, which no exact kernel can
hold: ``average`` makes one row of an image's views, and ``features`` replaces the kernel by random Fourier features.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pooled, Schedule, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Count, Positive, Tries, Views, Weight
from adaptkit.methods.ops import class_sums, one_hot, one_view, raw_text

LARGEST = 2**14  # rows of a kernel matrix in double precision, of which three are held: 6 GiB


class ProKeR(ZeroShot):
    """Kernel ridge regression of what zero-shot gets wrong on the support images. No training."""

    beta: Weight = 1.5  # sharpness of the kernel exp(-beta (1 - cosine))
    lam: Positive = 0.05  # trust in the support against zero-shot, lambda
    betas: tuple[Weight, Weight, Tries] = (0.5, 3.0, 20)  # first, last and number of those tried on validation images
    lams: tuple[Positive, Positive, Tries] = (0.001, 1.0, 10)
    views: Views = 10  # random views per support image
    average: bool = False  # the views of an image into one row, instead of a row each
    features: Count = 0  # random Fourier features in place of the exact kernel; 0 is exact
    augment: str = "crop-flip"

    def support_needs(self):
        return {"views": Pooled(views=self.views, augment=self.augment)}

    def grid(self):
        ranges = {"beta": self.betas, "lam": self.lams}
        return {name: torch.linspace(*ends, dtype=torch.double).tolist() for name, ends in ranges.items()}

    def fit(self, task):
        super().fit(task)
        views, labels = task.support.views, task.support.labels  # (S, V, D), (S,)
        views = unit(views.mean(1, keepdim=True)) if self.average else views
        self.keys = nn.Buffer(views.flatten(0, 1))  # (N, D)
        targets = one_hot(labels.repeat_interleave(views.shape[1]), len(self.text))
        self.residual = nn.Buffer(targets - self.keys @ self.text.T)  # Y - f0(S), (N, C)
        self.frequencies = nn.Buffer(torch.randn(self.features, self.keys.shape[1]).to(self.keys))  # (F, D)
        self.phases = nn.Buffer(torch.rand(self.features).to(self.keys) * 2 * math.pi)  # (F,)
        if not self.features and len(self.keys) > LARGEST:
            raise ValueError(
                f"proker must have at most {LARGEST} support rows for its exact kernel; got {len(self.keys)}; "
                "use average=true or features=8192"
            )
        self.coefficients = nn.Buffer(self.solve(self.system(self.beta, self.residual), self.lam))

    def refit(self, values):
        super().refit(values)
        self.coefficients.copy_(self.solve(self.system(self.beta, self.residual), self.lam))

    def lift(self, x, beta):
        """Kernel with every key, ``(B, N)``, or Fourier features, ``(B, F)``, whose inner product is the kernel."""
        if self.features:
            return (2 / self.features) ** 0.5 * (beta**0.5 * x @ self.frequencies.T + self.phases).cos()
        return (-beta * (1 - x.double() @ self.keys.double().T)).exp()

    def system(self, beta, targets):
        """A symmetric matrix M and a right-hand side, such that the coefficients are ``(M / lambda + I)^-1 rhs``."""
        if not self.features:
            return self.lift(self.keys, beta), targets.double()
        matrix, rhs = 0, 0
        for keys, rows in zip(self.keys.split(4096), targets.split(4096), strict=True):
            phi = self.lift(keys, beta).double()
            matrix, rhs = matrix + phi.T @ phi, rhs + phi.T @ rows.double()
        return matrix, rhs

    def solve(self, system, lam):
        matrix, rhs = system
        matrix = matrix / lam
        matrix.diagonal().add_(1)
        return torch.cholesky_solve(rhs, torch.linalg.cholesky(matrix)).to(self.keys).contiguous()

    def forward(self, batch):
        return self.zero_shot(batch.x) + self.correction(self.lift(batch.x, self.beta), self.coefficients)

    def correction(self, lifted, coefficients):
        """What the regression adds to zero-shot, as logits, ``(B, C)``."""
        return self.backbone.logit_scale * (lifted.to(coefficients) @ coefficients)

    def sweep(self, val):
        zero_shot, (betas, lams) = self.zero_shot(val.x), self.grid().values()
        for beta in betas:
            lifted, system = self.lift(val.x, beta), self.system(beta, self.residual)
            for lam in lams:
                yield zero_shot + self.correction(lifted, self.solve(system, lam))


class ProKeRCLAP(ProKeR):
    """Kernel ridge regression and a trained head that is held to the text by class."""

    schedule: Schedule = Schedule(
        epochs=300, lr=0.1, batch_size=256, optimizer="sgd", decay="cosine-epoch", warmup=1, drop_last=True
    )

    def fit(self, task):
        super().fit(task)
        self.raw = nn.Buffer(raw_text(task))  # t, (C, D)
        self.prototypes = nn.Parameter(self.raw.clone())  # w, (C, D)
        labels = task.support.labels.repeat_interleave(len(self.keys) // len(task.support))  # (N,)
        own = self.zero_shot(self.keys).softmax(-1).gather(1, labels[:, None])[:, 0]
        counts = labels.bincount(minlength=len(self.text))
        belief = class_sums(own, labels, len(counts)) / counts.clamp_min(1)
        self.multipliers = nn.Buffer(torch.where(counts > 0, belief, 1.0))  # CLAP's lambda, (C,)
        both = torch.cat([one_hot(labels, len(counts)), self.keys], 1)  # what coefficients are linear in, (N, C + D)
        solved = self.solve(self.system(self.beta, both), self.lam).split([len(counts), both.shape[1] - len(counts)], 1)
        self.of_labels, self.of_keys = (nn.Buffer(part, persistent=False) for part in solved)
        self.keep_head()

    def loss(self, batch):
        x, text = one_view(batch.views), unit(self.prototypes)
        coefficients = self.of_labels - self.of_keys @ text.T  # the regression's for this head, solved
        logits = self.backbone.logits(x, text) + self.correction(self.lift(x, self.beta), coefficients)
        held = (self.multipliers * (self.prototypes - self.raw).square().sum(-1)).mean()
        return F.cross_entropy(logits, batch.labels) + held

    @torch.no_grad()
    def keep_head(self):
        """Answer with the head as it is now, and with the regression for it."""
        moved = unit(self.prototypes)
        self.residual += self.keys @ (self.text - moved).T
        self.text.copy_(moved)
        self.refit({})

    def callbacks(self):
        from pytorch_lightning.callbacks import LambdaCallback

        return [LambdaCallback(on_train_end=lambda trainer, module: self.keep_head())]


@hookimpl
def methods():
    return {"proker": ProKeR, "proker-clap": ProKeRCLAP}
