"""Linear probe: logistic regression on raw image embeddings, blind to the text.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020, in the
few-shot code of Zhou et al., Learning to Prompt for Vision-Language Models, arXiv:2109.01134: it reads the projected
embedding of the plain image, neither normalised nor augmented.
Deviations: the optimum is reached, by Newton's method instead of L-BFGS, also where the penalty is weak: there the
released search stops early, and so is right about other images. Penalties are solved from the strongest to the weakest,
each once, from where those before lead to. Without validation images its inverse is that of CLIP's released example,
0.316.
"""

import math
from functools import cache

from torch import nn

from adaptkit import Method, Pooled, hookimpl
from adaptkit.io.ranges import Positive, Steps, Weight
from adaptkit.methods.explore import choose, note
from adaptkit.methods.logistic import SoftmaxRegression

GRID = [10.0**i for i in range(6, -7, -2)]


class LinearProbe(Method):
    """Logistic regression on image embeddings, blind to the text.

    By Newton's method, with an L2 penalty that is chosen on validation images. Solved, not trained.
    """

    inverse_penalty: Positive = 0.316  # scikit-learn's C, for when there are no validation images
    max_iter: Steps = 1000  # passes over the support for a penalty
    tol: Weight = 1e-5  # relative error of the weights at which it stops
    rounds: Steps = 8  # of halving the range of log10 C, after a grid from 1e6 down to 1e-6

    def needs(self):
        return {"x": Pooled(unit=False)}

    def fit(self, task):
        x, labels = task.support.x, task.support.labels
        missing = set(range(len(task.classnames))) - set(labels.tolist())
        if missing:
            raise ValueError(f"linear-probe must have support images of every class; got none of class {min(missing)}")

        regression = SoftmaxRegression(x, labels, len(task.classnames), self.max_iter, self.tol)

        def solve(log_c):
            weight, bias = regression.solve(10.0**log_c)
            if len(bias) == 2:  # scikit-learn penalises their difference, and gives that
                weight, bias = regression.solve(10.0**log_c / 2)
                weight, bias = weight - weight[0], bias - bias[0]
            return weight.to(x), bias.to(x)

        @cache
        def right(log_c):
            weight, bias = solve(log_c)
            return int((task.val.x @ weight.T + bias).argmax(-1).eq(task.val.labels).sum())

        for c in reversed(GRID) if task.val is not None else ():
            solve(math.log10(c))  # strong penalties lead to weak ones
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

    best = round(math.log10(choose(probe, "inverse_penalty", GRID, score)), 12)
    low, high = best - 1, best + 1
    for _ in range(probe.rounds):
        best = high if score(10.0**low) < score(10.0**high) else low
        low, high = (low, (low + high) / 2) if best == low else ((low + high) / 2, high)
    note(probe, "inverse_penalty", [*seen], [*seen.values()], 10.0**best)
    return best


@hookimpl
def methods():
    return {"linear-probe": LinearProbe}
