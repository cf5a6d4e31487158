"""CHiLS: zero-shot over the sub-classes of every class; the best one, weighted by its class, names the class.

Source: Novack et al., CHiLS: Zero-Shot Image Classification with Hierarchical Label Sets, arXiv:2302.02551.
Deviations: none known. Answers are logarithms of the weighted probabilities, a class's being that of its best
sub-class; they do not add up to one, as the softmax runs over all sub-classes and the products are not renormalised, so
that a long list thins out its members. Label sets are read as published: that sub-classes were given their class's name
("tuna fish") is left to the file.
"""

from typing import Literal

import torch
from torch import nn

from adaptkit import ZeroShot, hookimpl, unit
from adaptkit.io.text import template
from adaptkit.runs.plugins import pick


class CHiLS(ZeroShot):
    """Zero-shot over the sub-classes of every class; the best one names the class.

    Log-probabilities of classes through their sub-classes.
    """

    file: str = ""  # sub-classes by class, as the prompts `llm` read them; without, a class is its own only one
    templates: tuple[str, ...] = ("a photo of a {}.",)  # of a sub-class, averaged
    add_class: bool = True  # to its own list, unless it is there
    reweight: Literal["class", "sum", "pooled", "none"] = "class"  # see `confidence`

    def fit(self, task):
        super().fit(task)
        names = [[name.replace("_", " ")] for name in task.classnames]
        if self.file:
            lists = pick("prompts", "llm")(task.classnames, None, file=self.file, form="subclasses", template="{}")
            names = [
                own * (self.add_class and own[0] not in given) + given for own, given in zip(names, lists, strict=True)
            ]
        given = [template(sentence, "chils.templates") for sentence in self.templates]
        sentences = [sentence.replace("{}", name) for own in names for name in own for sentence in given]
        rows = unit(task.encode(sentences)).to(self.text).unflatten(0, (-1, len(self.templates)))
        self.rows = nn.Buffer(unit(rows.mean(1)))  # (S, D)
        classes = torch.repeat_interleave(torch.tensor([len(own) for own in names]))
        self.classes = nn.Buffer(classes.to(self.rows.device))  # (S,)

    def forward(self, batch):
        worth = self.confidence(batch.x)
        return worth if self.reweight == "pooled" else self.best(worth)

    def confidence(self, x):
        """Log of what each sub-class is worth, ``(B, S)``; of ``pooled``, each class, ``(B, C)``.

        Its probability times that of its class (``class``), times its list's sum (``sum``), or by itself (``none``);
        ``pooled`` is the product of the class's probability and that sum.
        """
        sub, log_class = self.backbone.logits(x, self.rows).log_softmax(-1), self.zero_shot(x).log_softmax(-1)
        if self.reweight == "none":
            return sub
        if self.reweight == "class":
            return sub + log_class[:, self.classes]
        best = self.best(sub)
        total = torch.zeros_like(best).index_add_(1, self.classes, (sub - best[:, self.classes]).exp()).log() + best
        return log_class + total if self.reweight == "pooled" else sub + total[:, self.classes]

    def best(self, rows):
        """The largest of each class's sub-classes: ``(B, S)`` to ``(B, C)``."""
        least = rows.new_full((len(rows), len(self.text)), -torch.inf)
        return least.scatter_reduce(1, self.classes.expand(len(rows), -1), rows, "amax")


@hookimpl
def methods():
    return {"chils": CHiLS}
