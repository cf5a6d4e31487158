"""A combiner of image and text, trained on triplets: a small network makes the query for what an image becomes.

It mixes both embeddings by a weight of its own for each query, and adds what it learned from both.

Source: Baldrati et al., Composed Image Retrieval Using Contrastive Learning and Task-Oriented CLIP-Based Features,
arXiv:2308.11485; ``genecis``: Vaze et al., GeneCIS: A Benchmark for General Conditional Image Similarity,
arXiv:2306.07969, the same network on mined triplets.
Deviations: the release multiplies cosines by 100, here by the backbone's own scale. Pairs of one label in a batch match
each other, where the release counts each image once. The towers stay frozen; the first stage that tunes them is left
out. GeneCIS's triplets are those of the dataset, none are mined from captions here, and its training is the combiner's.
The widths are those of the release for embeddings of 640, 2560 and 5120, as multiples.
"""

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import ComposedRetriever, Schedule, hookimpl, unit
from adaptkit.io.ranges import Count, Share


class Clip4CirCombiner(ComposedRetriever):
    """A trained network that makes one query of a text and an image."""

    projection: Count = 0  # width of each embedding in the network; 0 for four times what it is
    hidden: Count = 0  # 0 for eight times
    dropout: Share = 0.5
    schedule: Schedule = Schedule(epochs=300, lr=2e-5, batch_size=4096, optimizer="adam", decay="constant")

    def build(self, task):
        width = task.backbone.dim
        inner, hidden = self.projection or 4 * width, self.hidden or 8 * width
        self.text_in, self.image_in = nn.Linear(width, inner), nn.Linear(width, inner)
        self.mix, self.out = nn.Linear(2 * inner, hidden), nn.Linear(hidden, width)
        self.weigh, self.weight = nn.Linear(2 * inner, hidden), nn.Linear(hidden, 1)

    def query(self, asked):
        both = torch.cat([self.seen(self.text_in, asked.text), self.seen(self.image_in, asked.reference)], -1)
        share = self.weight(self.seen(self.weigh, both)).sigmoid()  # (N, 1), of the text
        return unit(self.out(self.seen(self.mix, both)) + share * asked.text + (1 - share) * asked.reference)

    def seen(self, layer, x):
        """A layer's output, rectified, parts of it dropped while it is trained."""
        return F.dropout(layer(x).relu(), self.dropout, self.training)


class GeneCis(Clip4CirCombiner):
    """The combiner as GeneCIS asks it: which image is like another one under a condition."""


@hookimpl
def methods():
    return {"clip4cir-combiner": Clip4CirCombiner, "genecis": GeneCis}
