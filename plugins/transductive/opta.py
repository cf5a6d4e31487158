"""OpTA: class means of a few images are carried to where the queries lie by optimal transport, then classify.

Source: Poulakakis-Daktylidis and Jamali-Rad, BECLR: Batch Enhanced Contrastive Few-Shot Learning, arXiv:2402.02444 (its
inference).
Deviations: the logistic regression is solved by Newton's method instead of L-BFGS.
Interactions: blind to the text. As many queries of each class are assumed; where some classes are rare, the means are
carried too far.
"""

import torch

from adaptkit import Method, Pooled, hookimpl
from adaptkit.io.ranges import Epsilon, Positive, Share, Steps
from adaptkit.methods.logistic import SoftmaxRegression
from adaptkit.methods.ops import class_sums, standardized

TINY = 1e-8  # added to marginals before their logarithm


class OpTA(Method):
    """Logistic regression on class means that optimal transport has moved to the queries."""

    scope = "set"

    passes: Steps = 2  # transports, one after the other
    one_shot_passes: Steps = 5  # where no class has more than one image
    ratio: Share = 0.7  # share of the transported means; all of it where no class has more than one image
    epsilon: Epsilon = 0.05  # of the entropy, beside a largest cost of 1
    sweeps: Steps = 1000  # of Sinkhorn's algorithm at most
    tolerance: Epsilon = 1e-4  # summed change of the means' potentials at which it stops
    inverse_penalty: Positive = 1.0  # scikit-learn's C

    def needs(self):
        return {"x": Pooled(unit=False)}

    def fit(self, task):
        task.require_support("opta")
        count, labels = len(task.classnames), task.support.labels
        shots = labels.bincount(minlength=count)
        if not shots.all():
            raise ValueError(f"support must have images of every class; got none of class {int(shots.argmin())}")
        means = class_sums(standardized(task.support.x), labels, count) / shots[:, None]
        self.register_buffer("means", means)  # (C, D)
        self.register_buffer("several", shots.max() > 1)

    def forward(self, batch):
        x = standardized(batch.x)
        weight, bias = self.head(self.carried(x))
        return x @ weight.to(x).T + bias.to(x)

    def carried(self, x):
        """The means after all passes, ``(C, D)``, for standardised queries ``(N, D)``."""
        means = self.means
        for _ in range(self.passes if self.several else self.one_shot_passes):
            plan = self.plan(means, x)[0]
            means = plan @ x / plan.sum(1, keepdim=True)
        return torch.lerp(self.means, means, self.ratio) if self.several else means

    def plan(self, means, x):
        """How much of each mean goes to each query, and what that costs, ``(C, N)`` both."""
        cost = (means.square().sum(1)[:, None] + x.square().sum(1) - 2 * means @ x.T).clamp_min(0)
        cost = cost / cost.max().clamp_min(1e-12)
        given, taken = ((torch.full_like(side, 1 / len(side)) + TINY).log() for side in (means[:, 0], x[:, 0]))
        u, v = torch.zeros_like(given), torch.zeros_like(taken)
        for _ in range(self.sweeps):
            before = u
            u = self.epsilon * (given - ((v - cost) / self.epsilon).logsumexp(1))
            v = self.epsilon * (taken - ((u[:, None] - cost) / self.epsilon).logsumexp(0))
            if float((u - before).abs().sum()) < self.tolerance:
                break
        return ((u[:, None] + v - cost) / self.epsilon).exp(), cost

    def head(self, means):
        """Weight and bias of a logistic regression on one row for each class."""
        labels = torch.arange(len(means)).to(means.device)
        return SoftmaxRegression(means, labels, len(means), tol=1e-5).solve(self.inverse_penalty)


@hookimpl
def methods():
    return {"opta": OpTA}
