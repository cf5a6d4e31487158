"""Linear adapters behind attention and MLP of every block, dropped at random, averaged over the steps, and merged.

Source: Kim et al., Efficient and Versatile Robust Fine-Tuning of Zero-shot Models, arXiv:2408.05749; the defaults are
those of few-shot ImageNet. From base to new classes: 101 epochs of batches of 32, 500 steps of warm-up, momentum 0.9,
smoothing 0, margin 0.1; on all of ImageNet 10 epochs of batches of 512, and rank 0.
Deviations: float32 instead of mixed precision. An adapter is dropped for one image or sentence at a time; the authors'
code drops positions of tokens, for a whole batch, and has a full matrix where the rank is at most the width:
``as_released`` does both. Where a batch has but one class nothing is smoothed; theirs divides by zero. Views keep half
of the image or more and are flipped; theirs keep nine tenths and are not.
"""

from copy import deepcopy
from functools import reduce

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Schedule, hookimpl
from adaptkit.io.ranges import Count, Positive, Share, Weight
from adaptkit.methods.ops import as_queries
from adaptkit.methods.tower_adapter import TowerAdapter
from adaptkit.towers.once import Once


class RAdapter(TowerAdapter):
    """Trains linear adapters in both towers, dropped at random, averaged and merged."""

    image_rank: Count = 4  # of adapters in the image tower, r; 0 for full matrices
    text_rank: Count = 4  # in the text tower
    start: Weight = 0.1  # of the trained scale s of each adapter
    drop: Share = 0.2  # probability that an adapter is left out, in training
    momentum: Share = 0.999  # of the running average of the adapters, which is what answers
    scale: Share = 0.5  # of s where it answers
    smoothing: Share = 0.02  # share of the targets that goes to sentences about other classes
    margin: Weight = 0.05  # cosine that is added to these
    clip: Positive = 1.0  # largest norm of the gradient
    augment: str = "crop-flip"
    as_released: bool = False  # drop positions; full matrices for ranks up to the width
    schedule: Schedule = Schedule(epochs=50, lr=5e-4, batch_size=256, final_lr=1e-6)

    def sentences(self, task):
        return super().sentences(task) if self.template else task.prompts

    def fit(self, task):
        task.backbone.require("image.block.0.out", "text.block.0.out")
        self.backbone, depth = task.backbone, task.backbone.depth
        self.names = [f"{t}.block.{i}.{m}" for t in ("image", "text") for i in range(depth[t]) for m in ("out", "fc2")]
        self.adapters = nn.ModuleList(self.adapter(name.split(".")[0]) for name in self.names)
        self.averages = deepcopy(self.adapters).requires_grad_(False)
        self.merged = {tower: Once() for tower in depth}
        self.retarget(task)

    def adapter(self, tower):
        """An adapter as it starts: its scale, ``(1,)``, and a matrix, ``(W, W)``, or two through r numbers."""
        width, rank = self.backbone.width[tower], {"image": self.image_rank, "text": self.text_rank}[tower]
        scale = torch.full((1,), self.start)
        if not rank or (self.as_released and rank <= width):
            return nn.ParameterList([scale, torch.zeros(width, width)])
        return nn.ParameterList([scale, nn.init.xavier_uniform_(torch.empty(rank, width)), torch.zeros(width, rank)])

    def changed(self, tower):
        own = [j for j, name in enumerate(self.names) if name.startswith(tower)]
        if self.training:
            return self.backbone.taps({self.names[j]: self.behind(*self.adapters[j]) for j in own})
        averages = [w for j in own for w in self.averages[j]]
        return self.backbone.weights(self.merged[tower](lambda: self.merge(own), torch.tensor(self.scale), *averages))

    def behind(self, scale, *maps):
        """What an adapter adds to what leaves a map."""
        return lambda _, out: out + scale * self.kept(reduce(F.linear, maps, out))

    def kept(self, change):
        """What was not dropped, scaled so that its mean stays: ``(P, T, W)``."""
        shape = (1, change.shape[1], 1) if self.as_released else (len(change), 1, 1)
        keep = change.new_full(shape, 1 - self.drop).bernoulli()
        return change * keep / max(1 - self.drop, 1e-6)

    def merge(self, own):
        """Weights of maps, and the averaged adapters behind them, in one."""
        merged = {}
        for j in own:
            scale, *maps = self.averages[j]
            change = self.scale * scale * reduce(lambda first, second: second @ first, maps)  # (W, W)
            for name in (f"{self.names[j]}.weight", f"{self.names[j]}.bias"):
                frozen = self.backbone.weight(name)
                merged[name] = frozen + change @ frozen
        return merged

    def loss(self, batch):
        one, text = as_queries(batch, self.needs()), self.encode(self.drawn(batch.targets))
        return self.mpm_nce(self.images(one.pixels), text, batch.targets, self.backbone.logit_scale)

    def mpm_nce(self, images, text, labels, scale):
        """Loss of B images and sentences, unit-norm, ``(B, D)``, among which those of one class belong together."""
        same = (labels[:, None] == labels).float()  # (B, B)
        own, other = same.sum(1, keepdim=True), (1 - same).sum(1, keepdim=True)
        smoothing = self.smoothing * (other > 0)
        targets = (1 - smoothing) * same / own + smoothing * (1 - same) / other.clamp_min(1)
        logits = scale * (images @ text.T + self.margin * (1 - same))
        return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2

    def callbacks(self):
        from pytorch_lightning.callbacks import LambdaCallback

        return [LambdaCallback(on_before_optimizer_step=self.limit, on_train_batch_end=self.average)]

    def limit(self, *_):
        nn.utils.clip_grad_norm_(self.adapters.parameters(), self.clip)

    @torch.no_grad()
    def average(self, *_):
        for mean, now in zip(self.averages.parameters(), self.adapters.parameters(), strict=True):
            mean.lerp_(now, 1 - self.momentum)


@hookimpl
def methods():
    return {"r-adapter": RAdapter}
