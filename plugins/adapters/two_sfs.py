"""In two stages: norms, biases or low-rank updates of both towers, and then a classifier on the frozen result.

Source: Farina et al., Rethinking Few-Shot Adaptation of Vision-Language Models in Two Stages, arXiv:2503.11609.
Deviations: float32 instead of mixed precision. Every LayerNorm is tuned, and with ``bitfit`` every bias, as the paper
says; the authors' code thaws the norms outside the blocks and freezes them again, and knows no biases of q, k and v:
``as_released`` does so, too. Low-rank updates have no dropout once they are frozen. New classes have the sentence of
training; the release's default lacks an article. With ``encoder: text`` ten cached views stand for fresh ones.
"""

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pooled, Schedule, hookimpl
from adaptkit.io.ranges import Count, Share, Size, Weight
from adaptkit.methods.low_rank import low_rank, low_rank_start
from adaptkit.methods.tower_adapter import TowerAdapter
from adaptkit.methods.tuned_weights import TunedWeights, norm_weights

TOWERS = {"both": ("image", "text"), "vision": ("image",), "text": ("text",)}


class TwoSFS(TowerAdapter):
    """Tunes few weights of both towers first, then the classifier that they make."""

    tunes: Literal["layer-norm", "bitfit", "lora"] = "layer-norm"
    share: Share = 0.6  # of the steps that tune the towers, alpha; the others train the classifier
    encoder: Literal["both", "vision", "text"] = "both"
    image_start: Count = 0  # first block of the image tower that is tuned, from 0
    text_start: Count = 0  # of the text tower
    rank: Size = 2  # of low-rank updates of q, k and v
    alpha: Weight = 1.0  # they are scaled by alpha / sqrt(rank)
    dropout: Share = 0.25  # of what enters them, in training
    as_released: bool = False  # without the norms outside the blocks, and the biases of q, k and v
    schedule: Schedule = Schedule(steps_per_shot=300, lr=2e-4, weight_decay=1e-2, final_lr=1e-6)

    def needs(self):
        return {"x": Pooled()} if self.encoder == "text" else super().needs()

    def support_needs(self):
        return {"views": Pooled(views=10, augment=self.augment)} if self.encoder == "text" else super().support_needs()

    def fit(self, task):
        self.backbone, self.known = task.backbone, tuple(task.labelnames)
        task.backbone.require(*(f"{tower}.block.0" for tower in TOWERS[self.encoder]))
        self.names = [name for name in task.backbone.weight_names() if self.is_tuned(name)]
        if not self.names:
            raise ValueError(f"two-sfs must tune a weight at least; got {self!r}; start at a lower block")
        if self.tunes == "lora":
            self.down, self.up = low_rank_start(task.backbone, self.names, self.rank)
        else:
            self.tuned = TunedWeights(task.backbone, self.names)
        self.classifier = nn.Parameter(torch.zeros(len(self.known), task.backbone.dim), requires_grad=False)
        self.register_buffer("second", torch.tensor(False))  # stage
        self.retarget(task)

    def is_tuned(self, name):
        tower, part, *inside = name.split(".")
        in_block, starts = part == "block", {"image": self.image_start, "text": self.text_start}
        block = int(inside[0]) if in_block else 0 if part in ("tokens", "prenorm") else max(starts.values())
        if tower not in TOWERS[self.encoder] or block < starts[tower]:
            return False
        of_qkv = in_block and inside[1] in ("q", "k", "v")
        if self.tunes == "lora":
            return of_qkv and name.endswith("weight")
        if self.tunes == "bitfit":
            return name.endswith("bias") and not (self.as_released and of_qkv)
        return name in norm_weights(self.backbone) and (in_block or not self.as_released)

    def retarget(self, task):
        super().retarget(task)
        self.places = [self.known.index(name) if name in self.known else -1 for name in task.labelnames]  # -1: new

    def learned(self, tower):
        return [] if self.encoder == "vision" else super().learned(tower)

    def changed(self, tower):
        if self.tunes != "lora":
            return self.tuned.placed(tower)
        every = zip(self.names, self.down, self.up, strict=True)
        own = {name.removesuffix(".weight"): (a, b) for name, a, b in every if name.startswith(tower)}
        drop = partial(F.dropout, p=self.dropout) if self.training and not self.second else None
        return low_rank(self.backbone, own, self.alpha / self.rank**0.5, drop)

    def forward(self, batch):
        x = batch.x if self.encoder == "text" else self.images(batch.pixels)
        return self.backbone.logits(x, self.rows())

    def rows(self):
        """Class embeddings, ``(C, D)``: from the second stage on the classifier's, the text tower's for new names."""
        if not self.second:
            return self.text()
        own = F.normalize(self.classifier)[self.places]  # trained or loaded, the same last bits
        return own if min(self.places) >= 0 else torch.where(own.new_tensor(self.places)[:, None] < 0, self.text(), own)

    def callbacks(self):
        from pytorch_lightning.callbacks import LambdaCallback

        return [LambdaCallback(on_train_batch_start=self.keep_time)]

    @torch.no_grad()
    def keep_time(self, trainer, lit, *_):
        """Change stages when it is time, and let the rate fall in each by itself."""
        step, change, (optimizer, *_) = trainer.global_step, int(lit.total * self.share), trainer.optimizers
        if step >= change and not self.second:
            self.second.fill_(True)
            self.requires_grad_(False)
            self.classifier.copy_(self.text()).requires_grad_(True)
            optimizer.param_groups[0]["params"] = [self.classifier]
            optimizer.state.clear()  # it has seen nothing of this stage
        begin, length = (change, lit.total - change) if self.second else (0, change)
        optimizer.param_groups[0]["lr"] = self.schedule.rate(step - begin, trainer.num_training_batches, length)


@hookimpl
def methods():
    return {"two-sfs": TwoSFS}
