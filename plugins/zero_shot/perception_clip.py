"""PerceptionCLIP: an image's circumstances are inferred first, then its class under each of them.

Source: An et al., More Context, Less Distraction: Visual Classification by Inferring and Conditioning on Contextual
Attributes, arXiv:2308.01313.
Deviations: the circumstances are appended to the task's own sentences. The release lists them for each dataset; the
default is ours. It shows results for several temperatures; here one is chosen on validation images.
"""

import itertools

import torch
from torch import nn

from adaptkit import ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Positive

FACTORS = (("", "outdoors in nature | in the wild", "in a city", "indoors"), ("", "bright", "dark | dim", "blurry"))


class PerceptionCLIP(ZeroShot):
    """Infers an image's circumstances first, and then its class under each of them.

    Log of ``p(y|x)``, the sum over circumstances z of ``p(y|x, z) p(z|x)``.
    """

    factors: tuple[tuple[str, ...], ...] = FACTORS  # values of each; "|" parts synonyms, "" says nothing
    without_class: str = ""  # a sentence to infer z from, e.g. "a photo of an object"; else z is inferred with classes
    temperature: Positive = 1.0  # of p(z|x): above 1 it is less sure

    def grid(self):
        return {"temperature": (1.0, 2.0, 3.0, 5.0, 10.0)}

    def fit(self, task):
        super().fit(task)

        synonyms = [[*itertools.product(*(v.split("|") for v in z))] for z in itertools.product(*self.factors)]

        def embed(classes):
            """Unit-norm means over synonyms and sentences under every circumstance, ``(classes, Z, D)``."""
            written = [[extend(s, words) for words in ways for s in own] for own in classes for ways in synonyms]
            rows = unit(task.encode([s for own in written for s in own])).to(self.text)
            means = torch.stack([own.mean(0) for own in rows.split([len(own) for own in written])])
            return unit(means).unflatten(0, (len(classes), -1))

        self.bank = nn.Buffer(embed(task.prompts))  # (C, Z, D)
        self.circumstances = nn.Buffer(embed([[self.without_class]])[0] if self.without_class else self.bank[:0, 0])

    def forward(self, batch):
        logits = self.backbone.logits(batch.x, self.bank.flatten(0, 1)).unflatten(1, self.bank.shape[:2])  # (B, C, Z)
        if self.without_class:
            log_z = self.backbone.logits(batch.x, self.circumstances) / self.temperature
        else:
            log_z = (logits / self.temperature).logsumexp(1)
        return (logits.log_softmax(1) + log_z.log_softmax(-1)[:, None]).logsumexp(-1)


def extend(sentence, words):
    """A sentence with what the words add before its full stop."""
    said = ", ".join([sentence.removesuffix("."), *filter(None, map(str.strip, words))])
    return said + "." * sentence.endswith(".")


@hookimpl
def methods():
    return {"perception-clip": PerceptionCLIP}
