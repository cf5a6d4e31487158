"""Cross-modal adaptation: the sentences about the classes are training samples like the images.

Source: Lin et al., Multimodality Helps Unimodality: Cross-Modal Few-Shot Learning with Multimodal Models,
arXiv:2301.06267; ``real-linear`` is that of Parashar et al., The Neglected Tails in Vision-Language Models,
arXiv:2401.12425.
Deviations: the authors train with every pair of learning rates (1e-3, 1e-4), weight decays (0, 1e-2, 1e-4) and batch
sizes (8, 32, half of it images) and keep what does best on validation images; here these are options. For the adapter
(rates 1e-4 to 1e-7) and the tower's end (1e-5 to 1e-7; decays 0, 1e-3, 1e-5, batches of 8 for both) set ``schedule``.
Beside the plain image they see its mirror image; here, a stored random view. The attention pool is SigLIP's; theirs is
that of CLIP's ResNets. Without validation images the last step is kept. REAL retrieves captioned images of the
pre-training set for each class; here that is the support, drawn with ``sus-x`` where images have no labels.
Interactions: what enters the trained end of the tower is stored: for ViT-B/16, 197 tokens an image.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pooled, Schedule, ZeroShot, accuracy, hookimpl, unit
from adaptkit.io.ranges import Share, Size, Steps, Views
from adaptkit.methods.ops import one_view, raw_text
from adaptkit.methods.tower_end import LAST_BLOCK, POOL, Entering, TunedEnd

ENDS = {"last-block": LAST_BLOCK, "pool": POOL}  # where the trained end of the tower begins


@dataclass(frozen=True, kw_only=True)
class LinearWarmup(Schedule):
    """A rate that rises in equal steps, and then falls along a cosine."""

    warmup_steps: Steps = 50

    def rate(self, step, per_epoch, total):
        if step < self.warmup_steps:
            return self.lr * step / self.warmup_steps if step else self.warmup_lr
        return super().rate(step - self.warmup_steps, per_epoch, total)


class CrossModal(ZeroShot):
    """A head, or the image tower's end, trained on sentences as well as on images."""

    tuned: Literal["head", "adapter", "last-block", "pool"] = "head"  # the head, and what is trained before it
    ratio: Share = 0.2  # share of the adapter's output in the blend
    reduction: Size = 4  # width of the embedding over that of the adapter
    ensemble: Share = 0.0  # share of the head's first weights in those that answer; the authors' WiSE-FT has 0.5
    check: Steps = (
        100  # from one look at the validation images to the next, of which the best head is kept; 0: the last
    )
    views: Views = 2  # of a support image, the first of them plain
    augment: str = "crop-flip"
    schedule: Schedule = LinearWarmup(steps=12800, lr=1e-3, batch_size=16, optimizer="adamw", weight_decay=0.01)

    def needs(self):
        return {"x": self.read()}

    def support_needs(self):
        return {"views": self.read(views=self.views, plain_first=True, augment=self.augment)}

    def read(self, **views):
        return Entering(point=ENDS[self.tuned], **views) if self.tuned in ENDS else Pooled(**views)

    def fit(self, task):
        super().fit(task)
        self.start = nn.Buffer(unit(raw_text(task)))  # (C, D)
        self.weight = nn.Parameter(self.start.clone())  # its rows do not stay of unit norm
        self.sentences = nn.Buffer(torch.cat(task.text_per_prompt))  # (P, D), unit-norm
        counts = torch.tensor([len(rows) for rows in task.text_per_prompt])
        self.owners = nn.Buffer(torch.arange(len(counts)).repeat_interleave(counts).to(self.sentences.device))  # (P,)
        self.val = task.val
        width, narrow = self.start.shape[1], max(1, self.start.shape[1] // self.reduction)
        if self.tuned == "adapter":
            down, up = nn.Linear(width, narrow, bias=False), nn.Linear(narrow, width, bias=False)
            self.adapter = nn.Sequential(down, nn.ReLU(), up, nn.ReLU())
        if self.tuned in ENDS:
            self.end = TunedEnd(task.backbone, ENDS[self.tuned])

    def forward(self, batch):
        return self.logits(self.embed(batch.x), torch.lerp(self.weight, self.start, self.ensemble))

    def embed(self, x):
        """Unit-norm embeddings, ``(B, D)``; of tokens, ``(B, T, W)``, by the trained end of the tower."""
        return unit(self.end(x)) if self.tuned in ENDS else x

    def logits(self, x, weight):
        """``(B, D)`` unit-norm embeddings, of images or of sentences, to ``(B, C)``."""
        x = self.ratio * self.adapter(x) + (1 - self.ratio) * x if self.tuned == "adapter" else x
        return self.backbone.logits(x, weight)

    def loss(self, batch):
        drawn = torch.randperm(len(self.owners))[: len(batch)].to(self.owners)
        return self.joint(self.embed(one_view(batch.views)), batch.labels, drawn)

    def joint(self, x, labels, rows):
        """Cross-entropy over images ``(B, D)`` and chosen sentences together."""
        both = torch.cat([x, self.sentences[rows]])
        return F.cross_entropy(self.logits(both, self.weight), torch.cat([labels, self.owners[rows]]))

    def callbacks(self):
        from adaptkit.methods.train import KeepBest

        look = self.val is not None and self.check
        return [KeepBest(self, lambda: accuracy(self, self.val), self.check)] if look else []


class REALLinear(CrossModal):
    """A head trained on retrieved images and sentences, averaged with its start."""

    ensemble: Share = 0.5
    check: Steps = 0  # the last step is kept
    views: Views = 1
    schedule: Schedule = LinearWarmup(epochs=10, lr=1e-4, batch_size=32, optimizer="adamw", weight_decay=0.01)


@hookimpl
def methods():
    return {"cross-modal": CrossModal, "real-linear": REALLinear}
