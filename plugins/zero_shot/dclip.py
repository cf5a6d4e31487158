"""Classification by description: an image fits a class as well as it fits the class's descriptors, on average.

Source: Menon and Vondrick, Visual Classification via Description from Large Language Models, arXiv:2210.07183; the
other two aggregations are those of Roth et al., Waffling around for Performance, arXiv:2306.07282.
Deviations: logits carry the backbone's scale, which the releases leave out; the order is the same. How a descriptor
becomes a sentence, and where that differs from the release, is said in the prompts plugin `llm`.
Averaging similarities does not renormalise the mean embedding: classes whose descriptors differ more score lower.
``merged`` renormalises it.
"""

from typing import Literal

import torch
from torch import nn

from adaptkit import ZeroShot, hookimpl, unit
from adaptkit.runs.plugins import pick


class DCLIP(ZeroShot):
    """Answers by an image's mean or largest similarity to descriptions of each class."""

    file: str = ""  # descriptors by class, as the prompts `llm` read them; without, the task's sentences are used
    template: str = "{name}, {}"  # class and descriptor
    aggregate: Literal["mean", "max", "merged"] = "mean"
    as_released: bool = False  # the joining words go by first letters

    def fit(self, task):
        super().fit(task)
        rows = task.text_per_prompt
        if self.file:
            options = {"form": "descriptors", "template": self.template, "as_released": self.as_released}
            sentences = pick("prompts", "llm")(task.classnames, None, file=self.file, **options)
            written = unit(task.encode([s for own in sentences for s in own])).to(self.text)
            rows = written.split([len(own) for own in sentences])
        if self.aggregate == "max":
            classes = torch.repeat_interleave(torch.tensor([len(own) for own in rows]))
            self.rows, self.classes = nn.Buffer(torch.cat(list(rows))), nn.Buffer(classes.to(self.text.device))
        else:
            mean = torch.stack([own.mean(0) for own in rows])  # (C, D)
            self.text = nn.Buffer(unit(mean) if self.aggregate == "merged" else mean)

    def forward(self, batch):
        if self.aggregate != "max":
            return self.zero_shot(batch.x)  # a mean of products is the product with the mean
        logits = self.backbone.logits(batch.x, self.rows)  # (B, S)
        least = logits.new_full((len(logits), len(self.text)), -torch.inf)
        return least.scatter_reduce(1, self.classes.expand(len(logits), -1), logits, "amax")


@hookimpl
def methods():
    return {"dclip": DCLIP}
