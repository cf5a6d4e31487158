"""CuPL: each class is the mean embedding of what a language model wrote about it.

Source: Pratt et al., What does a platypus look like? Generating customized prompts for zero-shot image classification,
arXiv:2209.03320.
Deviations: none known. Logits carry the backbone's scale, which the release leaves out; the order is the same.
Interactions: without a `file` the task's own sentences stand for the model's, so in a recipe whose ``prompts`` are
``{llm: {file: ...}}`` this is zero-shot, and every method starts from it.
"""

import torch
from torch import nn

from adaptkit import ZeroShot, hookimpl, unit
from adaptkit.runs.plugins import pick


class CuPL(ZeroShot):
    """Zero-shot with sentences that a language model wrote about each class."""

    file: str = ""  # sentences by class, as the prompts `llm` read them; without, the task's are used
    pooled: bool = False  # with the task's sentences: one mean over all, so that the longer list weighs more

    def fit(self, task):
        super().fit(task)
        if self.file:
            sentences = pick("prompts", "llm")(task.classnames, None, file=self.file)
            written = unit(task.encode([s for own in sentences for s in own])).to(self.text)
            rows = written.split([len(own) for own in sentences])
            if self.pooled:
                rows = [torch.cat(pair) for pair in zip(rows, task.text_per_prompt, strict=True)]
            self.text = nn.Buffer(unit(torch.stack([own.mean(0) for own in rows])))  # (C, D)


@hookimpl
def methods():
    return {"cupl": CuPL}
