"""Learned tokens in the first blocks of both towers; those of the image tower are projections of the text tower's.

Source: Khattak et al., MaPLe: Multi-modal Prompt Learning, arXiv:2210.03117.
Deviations: float32 instead of float16. Towers with fewer than ``depth`` blocks get tokens in all of them. As in the
authors' code, two tokens replace the first two of the words "a photo of a" and the other two stay as they are, and the
image tower's tokens have no position and follow the patches. Nothing can be cached: every step runs the image tower on
views drawn anew.
"""

import copy
from dataclasses import replace

import torch
from torch import nn

from adaptkit import Method, Pixels, Prompts, Schedule, hookimpl, unit
from adaptkit.io.ranges import Size, Weight
from adaptkit.methods.schedule import DASSL
from adaptkit.towers.prompting import image_prompts


class MaPLe(Method):
    """Trained tokens in the first blocks of both towers, the image's made of the text's."""

    n: Size = 2  # learned tokens in each tower
    init: str = "a photo of a"  # words whose first n the text prompt starts from; random if there are fewer
    depth: Size = 9  # blocks that get tokens of their own, J; 3 in the paper's cross-dataset setting
    std: Weight = 0.02  # of random starts
    schedule: Schedule = replace(DASSL, epochs=5, lr=3.5e-3, batch_size=4)

    tunable = ("context", "deep", "coupling", "couplings")

    def needs(self):
        return {"pixels": Pixels()}

    def support_needs(self):
        return {"views": Pixels(views=1, augment="wide-crop-flip", fresh=True)}

    def fit(self, task):
        self.backbone, width = task.backbone, task.backbone.width
        self.backbone.require("image.tokens")
        init = self.init if self.n <= len(self.init.split()) else ""
        self.prompts = Prompts(task.backbone, task.classnames, n=self.n, init=init)
        self.context = nn.Parameter(self.prompts.start(self.std))  # (n, W), P_0
        depth = min(self.depth, *task.backbone.depth.values())
        deep = [self.std * torch.randn(self.n, width["text"]) for _ in range(depth - 1)]
        self.deep = nn.ParameterList(deep)  # P_1 to P_{J-1}, each (n, W)
        self.coupling = nn.Linear(width["text"], width["image"])  # F_0
        one = nn.Linear(width["text"], width["image"])
        self.couplings = nn.ModuleList(copy.deepcopy(one) for _ in deep)  # F_1 to F_{J-1}: equal at the start

    def retarget(self, task):
        self.prompts = self.prompts.of(task.classnames)

    def forward(self, batch):
        text = self.prompts.encode(self.context, dict(enumerate(self.deep, start=1)))  # (C, D)
        pairs = zip([self.coupling, *self.couplings], [self.context, *self.deep], strict=True)
        with self.backbone.taps(image_prompts([couple(prompt) for couple, prompt in pairs])):
            x = self.backbone.encode_image(batch.pixels)  # (B, D)
        return self.backbone.logits(unit(x), unit(text))


@hookimpl
def methods():
    return {"maple": MaPLe}
