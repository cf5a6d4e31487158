"""Zero-shot labels kept in balance over the stream, and class proxies in image space that are learned from them.

Source: Qian and Hu, Online Zero-Shot Classification with CLIP, arXiv:2408.13320. Names as in the paper.
Deviations: none known. The weight of the proxies grows with the share of the stream that is past, so its length must
be given; beyond it the weight stays. The proxies' temperature must be above the zero-shot one's, so it is rescaled with
the backbone's. The logits are the logarithm of the mixed probabilities.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import ZeroShot, hookimpl
from adaptkit.io.ranges import Many, Positive, Share, Weight


class OnZeta(ZeroShot):
    """Zero-shot with labels kept in balance, plus class proxies learned image by image."""

    scope = "stream"

    n: Many = 50000  # images to come in all; the default is the number in ImageNet's validation set
    c_rho: Weight = 20.0  # step of the dual variables of the classes' balance
    c_w: Weight = 0.5  # step of the proxies
    alpha: Share = 1.0  # share of the images, times C, that every class gets at least; 0 for unbalanced streams
    beta: Share = 0.8  # weight of the proxies' answer at the stream's end
    tau: Positive = 0.04  # temperature of the proxies' cosines, for a logit scale of 100

    def fit(self, task):
        super().fit(task)
        self.proxies = nn.Buffer(self.text.clone())  # w, (C, D)
        self.rho = nn.Buffer(self.text.new_zeros(len(self.text)))
        self.seen = nn.Buffer(self.text.new_zeros(()))

    def forward(self, batch):
        x = batch.x[0]
        logits = x @ self.text.T / (1 / self.backbone.logit_scale)  # divided, as released: rounding is fed back
        self.seen += 1
        log_q = (logits + self.rho).log_softmax(-1)
        q = log_q.exp()
        if self.rho.max() < 60:  # the same in the release's order, which else overflows
            q = logits.softmax(-1) * self.rho.exp()
            q = q / q.sum()
        root = math.sqrt(self.seen)
        self.rho = (self.rho - self.c_rho / root * (q - self.alpha / len(q))).clamp_min(0)
        tau = self.tau * 100 / self.backbone.logit_scale
        said = x @ self.proxies.T / tau
        grad = torch.outer(said.softmax(-1) - q, x)  # (C, D), times tau
        self.proxies = F.normalize(self.proxies - self.c_w / root / tau * grad, dim=-1)
        beta = self.beta * (self.seen / self.n).clamp_max(1).sqrt()
        return torch.logaddexp(beta.log() + said.log_softmax(-1), (1 - beta).log() + log_q)[None]


@hookimpl
def methods():
    return {"onzeta": OnZeta}
