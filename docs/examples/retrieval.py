"""The sum of a text's and an image's cosine to an item, weighted by one number that is learned.

Source: none. Deviations: none.
"""

import torch
from torch import nn

from adaptkit import ComposedRetriever, Schedule, hookimpl, unit


class LearnedSum(ComposedRetriever):
    """Text and image, weighed by one learned number."""

    schedule: Schedule = Schedule(epochs=20, lr=0.05, batch_size=64)

    def build(self, task):
        self.weight = nn.Parameter(torch.zeros(()))

    def query(self, asked):
        share = self.weight.sigmoid()  # of the text
        return unit(share * unit(asked.text) + (1 - share) * unit(asked.reference))  # (N, D)


@hookimpl
def methods():
    return {"learned-sum": LearnedSum}
