"""DPA: unlabelled images are labelled by text and by image prototypes together, and tune the text's and the norms.

Source: Ali et al., DPA: Dual Prototypes Alignment for Unsupervised Adaptation of Vision-Language Models,
arXiv:2408.08855.
Deviations: float32; the last epoch is kept, where the release reports the best on the test set. The factor from cosine
to logit is the checkpoint's; the release writes 100. The weak view is the whole image, theirs a random crop of nearly
all of it. Weights and rates are the release's for most of its datasets, one by one: lr from 1e-6 (ImageNet, Food101,
SUN397) to 1e-4 (Caltech101, Flowers102), here 1e-5 as for CIFAR-100 and UCF101; image_share 0.01 to 0.5; 10 epochs on
EuroSAT and Aircraft. Classes that it did not adapt to are answered by their own text, under the learned norms.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pixels, Pooled, Schedule, hookimpl, unit
from adaptkit.io.ranges import Share, Size, Weight
from adaptkit.methods.ops import class_sums
from adaptkit.methods.unlabelled import PoolLearner


class DPA(PoolLearner):
    """Text prototypes and norms, tuned on labels by text and image prototypes."""

    image_share: Share = 0.5  # of image prototypes in a pseudo-label, the rest is the text's
    fairness: Weight = 1.0  # of a term that wants every class to be predicted
    align: Weight = 1.0  # of a term that draws text prototypes to image prototypes
    align_scale: Weight = 100.0  # from cosine to logit in that term; 1 on Flowers102 and EuroSAT
    window: Size = 32  # batches whose mean prediction the text's is divided by
    prototypes: Literal["mean", "similarity"] = "mean"  # of a class's images; or weighted by likeness to its others
    schedule: Schedule = Schedule(epochs=15, lr=1e-5, batch_size=64, weight_decay=0.1, final_lr=2e-6)

    def pool_needs(self):
        return {"x": Pooled(), "weak": Pixels(), "strong": Pixels(views=1, augment="randaugment", fresh=True)}

    def training_images(self, task):
        return super().training_images(task).load()  # so that rows are numbered as in the memory

    def fit(self, task):
        self.start_norms(task.backbone)
        self.text = nn.Parameter(task.text.clone())  # (C, D), of any norm
        self.memory = self.training_images(task).x.clone()  # (N, D), as last seen
        self.labels = self.logits(self.memory).argmax(1).detach()  # (N,), likewise
        self.centres = nn.Buffer(self.means())  # (C, D)
        self.seen = []  # mean predictions of the last batches, (C,) each

    def retarget(self, task):
        self.text = nn.Parameter(task.text.clone(), requires_grad=False)

    def encode(self, pixels):
        return unit(self.tuned.encode_image(pixels))

    def logits(self, x):
        return self.backbone.logits(x, F.normalize(self.text))  # trained or loaded, the same last bits

    def forward(self, batch):
        return self.logits(self.encode(batch.pixels))

    def loss(self, batch):
        with torch.no_grad():
            labels, weights = self.pseudo_labels(self.encode(batch.weak), batch.index.to(self.labels.device))
        logits = self.logits(self.encode(batch.strong[:, 0]))  # (B, C)
        taught = (weights * F.cross_entropy(logits, labels, reduction="none")).mean()
        fair = -logits.softmax(1).mean(0).log().mean()
        alike = self.align_scale * self.centres @ F.normalize(self.text).T  # (C, C)
        own = torch.arange(len(alike)).to(labels)
        return taught + self.fairness * fair + self.align * F.cross_entropy(alike, own)

    def pseudo_labels(self, x, rows):
        """Labels of B images, and how much both kinds of prototypes agree with each, ``(B,)``; both are remembered."""
        by_text, by_image = self.logits(x).softmax(1), self.backbone.logits(x, self.centres).softmax(1)
        self.seen = [*self.seen, by_text.mean(0)][-self.window :]
        levelled = by_text / torch.stack(self.seen).mean(0)
        both = self.image_share * by_image + (1 - self.image_share) * levelled / levelled.sum(1, keepdim=True)
        labels = both.argmax(1)
        self.memory[rows], self.labels[rows] = x.to(self.memory), labels
        weights = [p.gather(1, labels[:, None])[:, 0] / (p.amax(1) + 1e-7) for p in (by_text, by_image)]
        return labels, weights[0] * weights[1]

    @torch.no_grad()
    def means(self):
        """Image prototypes, ``(C, D)``, unit-norm; of a class without images the text's."""
        x, classes = self.memory, len(self.text)
        weight = x.new_ones(len(x))
        for c in range(classes if self.prototypes == "similarity" else 0):
            own = self.labels == c
            alike = (unit(x[own]) @ unit(x[own]).T).sum(0) - 1
            weight[own] = (alike / (own.sum() - 1 + 1e-7) / 0.2).softmax(0)
        sums = class_sums(weight[:, None] * x, self.labels, classes)
        absent = self.labels.bincount(minlength=classes) == 0
        return unit(torch.where(absent[:, None], self.text, sums))

    def callbacks(self):
        from pytorch_lightning.callbacks import LambdaCallback

        return [
            LambdaCallback(
                on_train_epoch_end=lambda trainer, module: self.centres.copy_(self.means()),
                on_train_end=lambda trainer, module: self.forget(),
            )
        ]

    def forget(self):
        """Keep no images: they answer nothing."""
        self.memory = self.labels = None
        self.seen = []


@hookimpl
def methods():
    return {"dpa": DPA}
