"""Each class's text is refined by two graphs of all classes, one of their texts and one of the means of their images.

Source: Li et al., GraphAdapter: Tuning Vision-Language Models With Dual Knowledge Graph, arXiv:2309.13625.
Deviations: one graph holds all classes, as the paper has it; the release makes four, each of every fourth class, to
save memory, and takes the mean of what they say: ``as_released=True``, for as many classes as four divides. Here what a
graph gathers is the same at every step, and is kept. Each step sees one of the stored views, of
which the class means are made, too. The batch and the warm-up are TaskRes'; weights begin as Xavier's, biases at zero.
"""

import torch
from torch import nn

from adaptkit import Pooled, Schedule, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Share, Views
from adaptkit.methods.ops import class_sums

PARTS = 4  # graphs that the release makes of one


class GraphAdapter(ZeroShot):
    """Class embeddings, blended with what graphs of texts and of images say of each."""

    beta: Share = 0.7  # share of the text as it was
    text_share: Share = 0.7  # share of the graph of texts in what graphs say, alpha
    views: Views = 10  # random views per support image, to train on
    augment: str = "wide-crop-flip"
    as_released: bool = False  # four graphs of a quarter of the classes each
    schedule: Schedule = Schedule(
        epochs=100, lr=1e-3, batch_size=256, optimizer="adam", decay="cosine-epoch", warmup=1, drop_last=True
    )

    def support_needs(self):
        return {"views": Pooled(views=self.views, augment=self.augment)}

    def fit(self, task):
        super().fit(task)
        views, labels, (count, dim) = task.support.views, task.support.labels, self.text.shape
        if self.as_released and count % PARTS:
            raise ValueError(f"as_released must be False unless {PARTS} divides the classes; got {count}")
        shots = labels.bincount(minlength=count).clamp_min(1)[:, None]
        self.means = nn.Buffer(class_sums(views.mean(1), labels, count) / shots)  # (C, D)
        self.of_text, self.of_image = nn.Buffer(self.gathered(self.text)), nn.Buffer(self.gathered(self.means))
        self.text_weight, self.image_weight = (nn.Parameter(self.text.new_empty(dim, dim)) for _ in range(2))
        nn.init.xavier_uniform_(self.text_weight), nn.init.xavier_uniform_(self.image_weight)
        self.text_bias, self.image_bias = (nn.Parameter(self.text.new_zeros(count, dim)) for _ in range(2))

    def gathered(self, nodes):
        """What a class's text is with its neighbours among nodes, ``(C, D)``: one row a graph, ``(Q, C, D)``."""
        parts = range(PARTS if self.as_released else 1)
        return torch.stack([self.neighbours(nodes[part :: len(parts)]) for part in parts])

    def neighbours(self, nodes):
        """The first row of ``D^-1/2 (A + I) D^-1/2`` times the nodes, in a graph of them and of a class's own text."""
        to = (unit(self.text) @ unit(nodes).T).clamp_min(0)  # (C, G)
        among = (unit(nodes) @ unit(nodes).T).clamp_min(0).sum(1) + 1  # (G,)
        own = 2 + to.sum(1, keepdim=True)  # a cosine of 1, and the identity
        return 2 / own * self.text + to * own.rsqrt() * (among + to).rsqrt() @ nodes

    def refined(self):
        """Class embeddings, ``(C, D)``; not of unit norm."""
        text = (self.of_text @ self.text_weight + self.text_bias).tanh().mean(0)
        image = (self.of_image @ self.image_weight + self.image_bias).tanh().mean(0)
        return self.beta * self.text + (1 - self.beta) * torch.lerp(image, text, self.text_share)

    def forward(self, batch):
        return self.backbone.logits(batch.x, unit(self.refined()))


@hookimpl
def methods():
    return {"graph-adapter": GraphAdapter}
