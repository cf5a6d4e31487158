"""MCM of the whole image and of its patches: an image belongs where one of them is sharp.

Source: Miyai et al., GL-MCM: Global and Local Maximum Concept Matching for Zero-Shot Out-of-Distribution Detection,
arXiv:2304.04521.
Deviations: none known. Of the paper's fpr95, in its metrics, `adaptkit.methods.evaluation.detection` tells.
Interactions: patches pass the last block by their values, one by one, as `Dense` reads them.
"""

from adaptkit import Dense, Pooled, ZeroShot, hookimpl
from adaptkit.io.ranges import Positive, Weight


class GLMCM(ZeroShot):
    """Scores an image by its largest class probability, plus that of any patch."""

    output = "score"

    temperature: Positive = 1.0  # of cosines
    weight: Weight = 0.5  # of the patches, lambda

    def needs(self):
        return {"x": Pooled(), "patches": Dense()}

    def forward(self, batch):
        whole = (batch.x @ self.text.T / self.temperature).softmax(-1).amax(-1)
        local = (batch.patches @ self.text.T / self.temperature).softmax(-1).amax((-2, -1))  # of (B, P, C)
        return whole + self.weight * local


@hookimpl
def methods():
    return {"gl-mcm": GLMCM}
