"""Maximum concept matching: an image belongs where its softmax over the class names is sharp.

Source: Ming et al., Delving into Out-of-Distribution Detection with Vision-Language Representations, arXiv:2211.13445.
Deviations: none known over zero-shot; the paper has no other `base`. The sign is ours: higher is in-distribution.
"""

from adaptkit import OverBase, hookimpl
from adaptkit.io.ranges import Positive


class MCM(OverBase):
    """Scores an image by its largest class probability, at a temperature of cosines."""

    output = "score"

    temperature: Positive = 1.0  # of cosines; a checkpoint's own is 1 / logit_scale, 0.01 for CLIP

    def forward(self, batch):
        cosine = self.base(batch) / self.backbone.logit_scale  # up to a bias, which the softmax ignores
        return (cosine / self.temperature).softmax(-1).amax(-1)


@hookimpl
def methods():
    return {"mcm": MCM}
