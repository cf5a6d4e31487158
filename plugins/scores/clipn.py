"""Each class says yes and, by a second text embedding, no: an image belongs where its class's yes outweighs its no.

Source: Wang et al., CLIPN for Zero-Shot OOD Detection: Teaching CLIP to Say No, arXiv:2308.12213.
Deviations: the second text tower, which the authors train on CC3M, is another backbone by name, with the task's own
prompts; without one, the task's own tower reads sentences that deny the class, which it was not taught to heed. Where
the paper compares with the share of a class that is none of them, 1 minus the score, the score itself is what we give.
"""

from typing import Literal

import torch

from adaptkit import ZeroShot, hookimpl, unit
from adaptkit.io.text import template


class CLIPN(ZeroShot):
    """Scores an image by its class's yes against its no, a second text embedding."""

    output = "score"

    score: Literal["atd", "ctw"] = "atd"  # agreeing to differ: the average; competing to win: the predicted class's
    no: str = ""  # another backbone, whose text tower says no; "": the task's own, with the sentences below
    templates: tuple[str, ...] = ("a photo without a {}.", "a photo with no {}.", "not a photo of a {}.")

    def fit(self, task):
        super().fit(task)
        if self.no:
            denied = task.text_by(self.no)
            if denied.shape != self.text.shape:
                raise ValueError(f"no must be a tower with embeddings as wide as {self.text.shape[1]}; got {self.no!r}")
        else:
            names = [name.replace("_", " ") for name in task.classnames]
            given = [template(sentence, "clipn.templates") for sentence in self.templates]
            sentences = [sentence.replace("{}", name) for name in names for sentence in given]
            denied = unit(unit(task.encode(sentences)).unflatten(0, (len(names), -1)).mean(1))
        self.register_buffer("denied", denied.to(self.text))  # (C, D)

    def forward(self, batch):
        yes, no = self.zero_shot(batch.x), self.backbone.logits(batch.x, self.denied)  # (B, C)
        says_yes = torch.sigmoid(yes - no)
        if self.score == "ctw":
            return says_yes.gather(1, yes.argmax(1, keepdim=True))[:, 0]
        return (says_yes * yes.softmax(-1)).sum(1)


@hookimpl
def methods():
    return {"clipn": CLIPN}
