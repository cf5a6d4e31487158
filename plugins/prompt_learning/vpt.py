"""Learned tokens in the image tower alone, in its first block (shallow) or in every one (deep); text stays as it is.

Source: Jia et al., Visual Prompt Tuning, arXiv:2203.12119, as Khattak et al., MaPLe: Multi-modal Prompt Learning,
arXiv:2210.03117, bring it to CLIP ("deep vision prompting").
Deviations: the classifier is the frozen text tower's and no head is learned, the tokens start from normal noise of one
width and there is no dropout on them: as in MaPLe's code, whose schedule this is. Tokens have no position and follow
the patches; the first paper's follow the class token, which gives the same answers. Class embeddings are the mean over
the task's sentences; that code has one, "a photo of a NAME.". Float32 instead of float16. Towers with fewer than
``depth`` blocks get tokens in all of them.
"""

from dataclasses import replace

from torch import nn

from adaptkit import Schedule, hookimpl
from adaptkit.io.ranges import Size
from adaptkit.methods.schedule import DASSL
from adaptkit.methods.tower_prompts import ImagePrompts


class VPT(ImagePrompts):
    """Trained tokens in the image tower's blocks; class embeddings stay as they are."""

    n: Size = 8  # learned tokens
    depth: Size = 12  # blocks that get tokens of their own; 1 is the shallow variant
    schedule: Schedule = replace(DASSL, epochs=5, lr=2.5e-3, batch_size=4)

    tunable = ("visual",)

    def fit(self, task):
        self.backbone = task.backbone
        self.backbone.require("image.tokens")
        self.retarget(task)
        blocks = min(self.depth, task.backbone.depth["image"])
        self.visual = nn.ParameterList(self.start_tokens("image", self.n, blocks))  # each (n, W)

    def retarget(self, task):
        self.text = nn.Buffer(task.text.clone())  # (C, D)

    def image_tokens(self):
        return list(self.visual)

    def class_embeddings(self):
        return self.text


@hookimpl
def methods():
    return {"vpt": VPT}
