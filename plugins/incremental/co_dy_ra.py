"""CoDyRA: low-rank updates of every map of both towers, whose ranks must earn their place and then become the weight.

Each rank of an update has a weight of its own, which shrinks at every step of the second part of a training and is zero
once it would change its sign. What is left of an update is added to the tower's weight before the next task, so that
towers are as large as ever and nothing tells one task's updates from another's.

Source: Lu et al., Adaptive Rank, Reduced Forgetting: Knowledge Retention in Continual Learning Vision-Language Models
with Dynamic Rank-Selective LoRA, arXiv:2412.01004.
Deviations: the paper was not at hand; this was written from its abstract, and held to the authors' code afterwards (of
Artificer-AI-Lab on GitHub). That starts w at random, weighs ranks alike and lets only a task's own classes compete. Its
threshold grows in fifty steps, ours at each. It also takes a weight of less than two thresholds to zero, and adds the
cross-entropy over a batch's images for each class of all so far: ``as_released=True``.
Interactions: with ``threshold: 0`` it is LoRA, task after task.
"""

import torch
from torch import nn

from adaptkit import Schedule, hookimpl
from adaptkit.io.ranges import Share, Size, Weight
from adaptkit.methods.low_rank import low_rank_start
from adaptkit.methods.sessions import Sessions
from adaptkit.methods.tower_adapter import TowerAdapter

MAPS = ("q", "k", "v", "out", "fc1", "fc2")


class CoDyRA(Sessions, TowerAdapter):
    """Low-rank updates whose ranks are weighed and pruned, merged before the next task."""

    rank: Size = 16  # of each update, before any is pruned
    threshold: Weight = 0.005  # what the weight of each rank loses at the last step; less at those before
    dense: Share = 0.5  # of the steps, the first ones, in which none loses anything
    as_released: bool = False
    schedule: Schedule = Schedule(steps=500, lr=5e-4, batch_size=64)

    def fit(self, task):
        task.backbone.require("image.block.0.q", "text.block.0.q")
        self.backbone, depth = task.backbone, task.backbone.depth
        blocks = [f"{tower}.block.{i}" for tower in ("image", "text") for i in range(depth[tower])]
        self.names = [f"{block}.{name}" for block in blocks for name in MAPS]
        task.backbone.require(*self.names)
        frozen = [torch.zeros_like(task.backbone.weight(name)) for name in self.names]
        self.merged = nn.ParameterList(nn.Parameter(zeros, requires_grad=False) for zeros in frozen)
        self.start()
        self.begin(task)
        self.retarget(task)

    def start(self):
        """Updates that change nothing yet: A and B, and a weight for each rank, ``(r,)``, of either sign."""
        self.a, self.b = low_rank_start(self.backbone, self.names, self.rank)
        self.ranks = nn.ParameterList(torch.randn(self.rank) for _ in self.names)

    def extend(self, task):
        super().extend(task)
        for whole, update in zip(self.merged, self.updates(), strict=True):
            whole.data += update.detach()
        self.start()

    def updates(self):
        """What this task has changed of each map, ``(W', W)``."""
        return [b * w @ a for a, b, w in zip(self.a, self.b, self.ranks, strict=True)]

    def changed(self, tower):
        rows = zip(self.names, self.merged, self.updates(), strict=True)
        own = {n: self.backbone.weight(n) + whole + update for n, whole, update in rows if n.startswith(tower)}
        return self.backbone.weights(own)

    def loss(self, batch):
        logits = self.backbone.logits(self.images(batch.views[:, 0]), self.text())
        loss = self.among_new(logits, batch.labels)
        if self.as_released:
            own = batch.labels == torch.arange(logits.shape[1], device=logits.device)[:, None]  # (C, B)
            loss = loss - logits.T.log_softmax(1)[own].sum() / len(own)
        return loss

    @torch.no_grad()
    def prune(self, done):
        """Take from the weights of ranks what a step costs when such a share of all steps is done."""
        cost = self.threshold * max(0.0, done - self.dense) / max(1e-9, 1 - self.dense)
        least = 2 * cost if self.as_released else cost  # less is nothing
        for weights in self.ranks:
            weights.copy_((weights - cost * weights.sign()) * (weights.abs() >= least))

    def callbacks(self):
        from pytorch_lightning.callbacks import LambdaCallback

        after = lambda trainer, *_: self.prune(trainer.global_step / trainer.max_steps)  # noqa: E731
        return [LambdaCallback(on_train_batch_end=after)]


@hookimpl
def methods():
    return {"co-dy-ra": CoDyRA}
