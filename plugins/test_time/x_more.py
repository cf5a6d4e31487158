"""The image's own answer and that of the captions nearest to it, each weighted by how sure it is.

Source: Eom et al., Cross-Modal Retrieval Meets Inference: Improving Zero-Shot Classification with Cross-Modal
Retrieval, arXiv:2308.15273.
Deviations: the released code divides each weight by the sum of that modality's weights over all images so far, so that
its answers depend on the stream; ``as_released=True`` does that. It takes captions from an index of CC12M or LAION,
ranks them again by a larger CLIP and puts the prompt in front of each; ours come from a file, nearest by the task's own
backbone, as they are. Without a file the task's own prompts are the captions, which adds little to zero-shot. The
logits are the logarithm of the weighted sum of the probabilities.
"""

import math
from pathlib import Path

import torch
from torch import nn

from adaptkit import Pooled, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Size
from adaptkit.methods.graph import knn
from adaptkit.methods.ops import entropy


class XMoRe(ZeroShot):
    """An image's own answer and that of its nearest captions, weighted by certainty.

    A caption is worth most where all that were found say the same.
    """

    captions: str = ""  # file of captions, one a line; "": the task's prompts; "given": arrays of that name
    k: Size = 16  # captions found for an image, K
    as_released: bool = False

    def __post_init__(self):
        self.scope = "stream" if self.as_released else "sample"

    def needs(self):
        given = {"captions": Pooled(views=self.k)} if self.captions == "given" else {}
        return {"x": Pooled()} | given

    def fit(self, task):
        super().fit(task)
        self.total = nn.Buffer(self.text.new_zeros(2))  # of the weights so far, image and captions
        if self.captions != "given":
            self.bank = nn.Buffer(unit(task.encode(self.sentences(task))).to(self.text))  # (M, D)

    def sentences(self, task):
        """The captions to search."""
        if not self.captions:
            return [sentence for sentences in task.prompts for sentence in sentences]
        if not Path(self.captions).is_file():
            raise ValueError(f"captions must be a file with one caption a line; got {self.captions!r}")
        return [line for line in Path(self.captions).read_text(encoding="utf-8").splitlines() if line.strip()]

    def forward(self, batch):
        found = batch.captions if self.captions == "given" else self.bank[knn(batch.x, self.bank, self.k)[1]]
        log_p, weights = self.answer_by(batch.x, found)
        weights = weights.clamp_min(1e-6)  # what is below is rounding
        if self.as_released:
            totals = self.total + weights.cumsum(0)
            self.total, weights = totals[-1], weights / totals
        return (log_p + weights.log()[..., None]).logsumexp(1)

    def replay(self, stream):
        return self(stream)

    def answer_by(self, x, captions):
        """Of the images and of their captions ``(B, K, D)``, log-probabilities ``(B, 2, C)`` and weights ``(B, 2)``."""
        spoken = self.zero_shot(captions).log_softmax(-1).logsumexp(1) - math.log(captions.shape[1])
        log_p = torch.stack([self.zero_shot(x).log_softmax(-1), spoken], 1)
        return log_p, 1 - entropy(log_p) / math.log(len(self.text))


@hookimpl
def methods():
    return {"x-more": XMoRe}
