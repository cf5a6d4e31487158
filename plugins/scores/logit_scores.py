"""Four older scores of how sure an answer is, on cosines: the largest, the energy, the entropy, the variance.

Source: Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, arXiv:1911.11132 (max-logit);
Liu et al., Energy-based Out-of-distribution Detection, arXiv:2010.03759; entropy and variance as MCM's code has them.
Deviations: none known. The sign is ours: higher is in-distribution.
"""

from adaptkit import OverBase, hookimpl
from adaptkit.io.ranges import Positive
from adaptkit.methods.ops import entropy


class MaxLogit(OverBase):
    """Scores an image by its largest cosine to a class."""

    output = "score"

    def forward(self, batch):
        return self.score((self.base(batch) - self.backbone.logit_bias) / self.backbone.logit_scale)

    def score(self, cosine):
        return cosine.amax(-1)


class Energy(MaxLogit):
    """Scores an image by the negative free energy of its cosines to the classes."""

    temperature: Positive = 1.0  # of cosines

    def score(self, cosine):
        return self.temperature * (cosine / self.temperature).logsumexp(-1)


class Entropy(MaxLogit):
    """Scores an image by the negative entropy of its class probabilities, nats."""

    temperature: Positive = 1.0  # of cosines

    def score(self, cosine):
        return -entropy(cosine / self.temperature)


class Variance(MaxLogit):
    """Scores an image by the variance of its class probabilities."""

    temperature: Positive = 1.0  # of cosines

    def score(self, cosine):
        return (cosine / self.temperature).softmax(-1).var(-1, correction=0)


@hookimpl
def methods():
    return {"max-logit": MaxLogit, "energy": Energy, "entropy": Entropy, "variance": Variance}
