"""Linear probe: logistic regression on raw image embeddings, blind to the text.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020, in the
few-shot code of Zhou et al., Learning to Prompt for Vision-Language Models, arXiv:2109.01134: it reads the projected
embedding of the plain image, neither normalised nor augmented.
Deviations: the optimum is reached. Embeddings are centred first, which leaves the optimum where it is, because the bias
is not penalised, and takes far fewer steps; the released search stops early where the penalty is weak. Each penalty is
solved once. Without validation images its inverse is that of CLIP's released example, 0.316.
"""

import math
import warnings
from functools import cache

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import nn

from adaptkit import Method, Pooled, hookimpl
from adaptkit.io.ranges import Positive, Steps, Weight
from adaptkit.methods.explore import choose, note


class LinearProbe(Method):
    """Logistic regression on image embeddings, blind to the text.

    By L-BFGS, with an L2 penalty that is chosen on validation images. Solved, not trained.
    """

    inverse_penalty: Positive = 0.316  # scikit-learn's C, for when there are no validation images
    max_iter: Steps = 1000  # of L-BFGS
    tol: Weight = 1e-6  # largest gradient of the mean loss at which it stops
    rounds: Steps = 8  # of halving the range of log10 C, after a grid from 1e6 down to 1e-6

    def needs(self):
        return {"x": Pooled(unit=False)}

    def fit(self, task):
        x, labels = task.support.x, task.support.labels
        missing = set(range(len(task.classnames))) - set(labels.tolist())
        if missing:
            raise ValueError(f"linear-probe must have support images of every class; got none of class {min(missing)}")

        @cache
        def solve(log_c):
            weight, bias = regress(x.double().cpu(), labels.cpu(), 10.0**log_c, self.max_iter, self.tol)
            return weight.to(x), bias.to(x)

        @cache
        def right(log_c):
            weight, bias = solve(log_c)
            return int((task.val.x @ weight.T + bias).argmax(-1).eq(task.val.labels).sum())

        log_c = math.log10(self.inverse_penalty) if task.val is None else search(self, right)
        self.weight, self.bias = map(nn.Buffer, solve(log_c))  # (C, D), (C,)
        self.inverse_penalty = 10.0**log_c

    def forward(self, batch):
        return batch.x @ self.weight.T + self.bias


def search(probe, right):
    """The log10 C that a coarse grid and then rounds of keeping the half that does better lead to.

    Of equal scores the grid takes the larger value and the halving the smaller.
    """
    seen = {}

    def score(c):
        return seen.setdefault(c, right(round(math.log10(c), 12)))

    best = round(math.log10(choose(probe, "inverse_penalty", [10.0**i for i in range(6, -7, -2)], score)), 12)
    low, high = best - 1, best + 1
    for _ in range(probe.rounds):
        best = high if score(10.0**low) < score(10.0**high) else low
        low, high = (low, (low + high) / 2) if best == low else ((low + high) / 2, high)
    note(probe, "inverse_penalty", [*seen], [*seen.values()], 10.0**best)
    return best


def regress(x, labels, c, max_iter, tol):
    """Weight ``(C, D)`` and bias ``(C,)`` of logistic regression with inverse penalty `c`.

    The optimum lies in the span of the rows, whose coordinates are at most as many as the rows.
    """
    centre = x.mean(0)
    u, s, axes = torch.linalg.svd(x - centre, full_matrices=False)  # (N, R), (R,), (R, D)
    solver = LogisticRegression(C=c, max_iter=max_iter, tol=tol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty may need more steps; what is there is used
        warnings.filterwarnings("ignore", message="The number of unique classes")  # one shot is few
        solver.fit((u * s).numpy(), labels.numpy())
    weight, bias = torch.from_numpy(solver.coef_) @ axes, torch.from_numpy(solver.intercept_)
    if len(weight) == 1:  # of two classes scikit-learn gives the difference
        weight, bias = torch.cat([0 * weight, weight]), torch.cat([0 * bias, bias])
    return weight, bias - weight @ centre


@hookimpl
def methods():
    return {"linear-probe": LinearProbe}
