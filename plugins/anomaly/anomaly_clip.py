"""Learned words for an object, whichever it is, and for a damaged one; patches attend by values on a second path.

Source: Zhou et al., AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly Detection, arXiv:2310.18961.
Deviations: the authors learn from one dataset's test images and are judged on another's; here the support, normal and
anomalous images with masks, is what is learned from. Blocks are the last of each quarter of any tower, the authors' 6,
12, 18 and 24 of ViT-L/14-336, whose last 19 have the second path. The release leaves out the tower's last norm of the
class token, which the paper does not say: ``as_released=True``. Adam's betas are torch's; the authors' are 0.5, 0.999.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Layers, Method, Pooled, Prompts, Schedule, ValuePath, hookimpl, unit
from adaptkit.io.ranges import BlockNumber, Positive, Size, Weight
from adaptkit.methods.evaluation.maps import stretched, with_scores
from adaptkit.methods.states import size_of, squared

NAMES = ("object", "damaged object")
SMOOTH = 1e-5  # of labels, and added to probabilities


class AnomalyCLIP(Method):
    """Trained words for normal and for damaged objects, in several blocks."""

    answers = ("maps",)
    exempt: ClassVar = {"beats_chance": "random words need more than that check's sixty steps at the paper's rate"}

    n: Size = 12  # learned words of each state
    depth: Size = 9  # blocks of the text tower that get words of their own
    deep: Size = 4  # words of each of these blocks after the first, in the place of the first of `n`
    blocks: tuple[BlockNumber, ...] = ()  # of the image tower; none stands for the last of each quarter
    last: Size = 19  # blocks that the second path has at the end of the tower, at most all
    temperature: Positive = 0.07  # of cosines
    sigma: Weight = 4.0  # of the Gaussian over maps, pixels
    map_weight: Weight = 4.0  # of the loss of maps, beside that of images
    std: Weight = 0.02  # of random starts
    as_released: bool = False
    schedule: Schedule = Schedule(epochs=15, lr=1e-3, batch_size=8, optimizer="adam", decay="constant")

    def needs(self):
        own = Layers(blocks=(-1,), tokens="class") if self.as_released else Pooled()
        return {"x": own, "path": ValuePath(blocks=self.blocks or "quarters", last=self.last)}

    def fit(self, task):
        self.backbone, self.size = task.backbone, size_of(task)
        if not task.support.targets.any():
            raise ValueError("support must have anomalous images with their masks; got none")
        if self.deep > self.n:
            raise ValueError(f"deep must be at most n, {self.n}; got {self.deep}")
        self.prompts, width = Prompts(task.backbone, NAMES, n=self.n), task.backbone.width["text"]
        blocks = min(self.depth, task.backbone.depth["text"])
        self.context = nn.Parameter(self.std * torch.randn(2, self.n, width))  # normal and anomalous
        self.deeper = nn.ParameterList(self.std * torch.randn(self.deep, width) for _ in range(blocks - 1))

    def retarget(self, task):
        """The same words for other objects."""

    def text(self):
        """Unit-norm embeddings of an object and a damaged one, ``(2, D)``."""

        def enter(words):
            start = self.backbone.prefix
            return lambda _, x: torch.cat([x[:, :start], words.expand(len(x), -1, -1), x[:, start + self.deep :]], 1)

        with self.backbone.taps({f"text.block.{i}": enter(words) for i, words in enumerate(self.deeper)}):
            return unit(self.prompts.encode(self.context))

    def forward(self, batch):
        from scipy.ndimage import gaussian_filter

        text = self.text()
        maps = stretched(squared(self.states(batch.path, text)[..., 1].sum(1)), self.size)
        smooth = torch.from_numpy(gaussian_filter(maps.cpu().numpy(), self.sigma, axes=(1, 2)))
        return with_scores(smooth.to(maps), self.states(self.pooled(batch), text)[:, 1])

    def pooled(self, batch):
        """Unit-norm embeddings of whole images, ``(B, D)``."""
        project = self.backbone.points["image.projection"].untapped if self.as_released else None
        return unit(project(batch.x[:, 0, 0])) if project else batch.x

    def states(self, x, text):
        """Probabilities of normal and anomalous, ``(..., 2)``."""
        return (x @ text.T / self.temperature).softmax(-1)

    def loss(self, batch):
        return sum(weight * part for weight, part in zip((self.map_weight, 1), self.parts(batch), strict=True))

    def parts(self, batch):
        """Focal and dice loss of maps, summed over blocks, and cross-entropy of images."""
        text, masks = self.text(), batch.targets
        anomalous = self.states(batch.path, text)[..., 1]  # (B, K, P)
        own = sum(map_loss(stretched(squared(p), masks.shape[1:]), masks) for p in anomalous.unbind(1))
        logits = self.pooled(batch) @ text.T / self.temperature
        return own, F.cross_entropy(logits, masks.flatten(1).any(1).long())


def map_loss(maps, masks):
    """Focal loss with gamma 2, and dice loss of anomalous and of normal pixels, each a mean; maps are probabilities."""
    masks = masks.to(maps)
    right = torch.where(masks > 0.5, maps, 1 - maps)
    p = (1 - SMOOTH) * right + SMOOTH * (1 - right) + SMOOTH
    return (-((1 - p) ** 2) * p.log()).mean() + dice(maps, masks) + dice(1 - maps, 1 - masks)


def dice(p, masks):
    """One minus the overlap of probabilities and masks, the mean over images."""
    return (1 - (2 * (p * masks).sum((1, 2)) + 1) / (p.sum((1, 2)) + masks.sum((1, 2)) + 1)).mean()


@hookimpl
def methods():
    return {"anomaly-clip": AnomalyCLIP}
