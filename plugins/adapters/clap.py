"""CLAP: class prototypes that start at the text and are held to it, the more the better the text explains the support.

Source: Silva-Rodriguez et al., A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models,
arXiv:2312.12730. ``zs-lp`` is the paper's baseline without the penalty. Neither looks at validation images.
Deviations: an epoch sees each image once, in one of its stored views; the authors' draws as many rows from all views of
all images. A class without support images keeps its multiplier at 1; theirs becomes NaN. Prototypes start at raw text
embeddings and the penalty is measured there, so its strength depends on their norm, which the authors tuned for CLIP's.
"""

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pooled, Schedule, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Views
from adaptkit.methods.ops import class_sums, in_parts, raw_text


class ZSLP(ZeroShot):
    """A trained linear probe on unit-norm embeddings that starts at the text.

    A linear probe on unit-norm embeddings whose prototypes start at the text and are normalised when asked.
    """

    views: Views = 20  # random views per support image, to train on
    augment: str = "wide-crop-flip"
    schedule: Schedule = Schedule(
        epochs=300, lr=0.1, batch_size=256, optimizer="sgd", decay="cosine-epoch", warmup=1, drop_last=True
    )

    def support_needs(self):
        return {"views": Pooled(views=self.views, augment=self.augment)}

    def fit(self, task):
        super().fit(task)
        self.raw = nn.Buffer(raw_text(task))  # t, (C, D)
        self.prototypes = nn.Parameter(self.raw.clone())  # w, (C, D)

    def forward(self, batch):
        return self.logits(batch.x)

    def logits(self, x):
        """``(B, D)`` unit-norm embeddings to ``(B, C)``."""
        return self.backbone.logits(x, unit(self.prototypes))


class CLAP(ZSLP):
    """A trained linear probe that starts at the text and is held to it, class by class.

    `ZSLP` plus the mean over classes of ``lambda * |w - t|^2``; lambda is how far the text believes in the class.
    """

    adaptive: bool = False  # multipliers change after each epoch, by the augmented Lagrangian of the paper's ablation

    def fit(self, task):
        super().fit(task)
        views, labels = task.support.views, task.support.labels  # (S, V, D), (S,)
        counts = labels.bincount(minlength=len(self.raw))
        text, every = unit(self.raw), labels[:, None].expand(views.shape[:2])  # (C, D), (S, V)

        def belief(x, labels):
            logits = self.backbone.logits(x.flatten(0, 1), text)
            return ((-F.cross_entropy(logits, labels.flatten(), reduction="none")).exp().view(labels.shape).mean(1),)

        own = class_sums(*in_parts(belief, views, every), labels, len(counts))
        self.multipliers = nn.Buffer(torch.where(counts > 0, own / counts.clamp_min(1), 1.0))  # lambda, (C,)
        self.penalties = nn.Buffer(torch.zeros_like(self.multipliers))  # rho, (C,)

    def loss(self, batch):
        return super().loss(batch) + self.constraint()

    def constraint(self):
        return (self.multipliers * self.distances()).mean()

    def distances(self):
        return (self.prototypes - self.raw).square().sum(-1)  # (C,)

    @torch.no_grad()
    def outer_step(self):
        """Multipliers rise with the distances; the first time nothing but the penalties changes."""
        distances = self.distances()
        self.multipliers.copy_((self.multipliers + self.penalties * distances).clamp_min(0))
        self.penalties.copy_(distances)

    def callbacks(self):
        if not self.adaptive:
            return []
        from pytorch_lightning.callbacks import LambdaCallback

        return [LambdaCallback(on_train_epoch_end=lambda trainer, module: self.outer_step())]


@hookimpl
def methods():
    return {"clap": CLAP, "zs-lp": ZSLP}
