"""CLIP-Adapter: a small network refines the image embedding before it meets the zero-shot head.

Source: Gao et al., CLIP-Adapter: Better Vision-Language Models with Feature Adapters, arXiv:2110.04544.
Deviations: each step sees one of the stored views of an image instead of a fresh augmentation. The paper's optional
adapter of the text is not in the released code and not here. The release ships no configuration; the schedule is the
one of the CoOp code base that it is built in. The paper tries ratios from 0.2 to 0.8 per dataset.
"""

from dataclasses import replace

from torch import nn

from adaptkit import Schedule, hookimpl
from adaptkit.io.ranges import Share, Size
from adaptkit.methods.adapter import ImageAdapter
from adaptkit.methods.schedule import DASSL


class CLIPAdapter(ImageAdapter):
    """A small trained network refines the image embedding before the zero-shot head."""

    ratio: Share = 0.2  # share of the adapter's output in the blend, alpha
    reduction: Size = 4  # width of the embedding over that of the bottleneck
    schedule: Schedule = replace(DASSL, epochs=200)

    def fit(self, task):
        super().fit(task)
        width = self.text.shape[1]
        down = nn.Linear(width, width // self.reduction, bias=False)
        up = nn.Linear(width // self.reduction, width, bias=False)
        self.adapter = nn.Sequential(down, nn.ReLU(), up, nn.ReLU())

    def adapted(self, x):
        return self.ratio * self.adapter(x) + (1 - self.ratio) * x


@hookimpl
def methods():
    return {"clip-adapter": CLIPAdapter}
