"""Small adapters beside the upper blocks of both towers, whose middle map the towers share.

Source: Yang et al., MMA: Multi-Modal Adapter for Vision-Language Models, CVPR 2024.
Deviations: float32 instead of mixed precision. The gradients are those of the paper's equations, small by its scale of
0.001; the authors' code divides what reaches the adapters by the scale: ``as_released`` does so, too, and is what their
numbers were reached with. Blocks are counted alike in both towers, of which each has adapters as far as it goes, at
least in its last block. Their adapter of the embeddings, a block 0, is not here.
"""

from dataclasses import replace

from torch import nn

from adaptkit import Schedule, hookimpl
from adaptkit.io.ranges import Positive, Size
from adaptkit.methods.schedule import DASSL
from adaptkit.methods.tower_adapter import TowerAdapter


class MMA(TowerAdapter):
    """Trains adapters beside the upper blocks of both towers, their middle map shared."""

    start: Size = 5  # first block with an adapter, k, counted from 1
    end: Size = 12  # last
    width: Size = 32  # of the bottleneck
    scale: Positive = 0.001  # of what an adapter adds to its block's output, alpha
    as_released: bool = False  # divide the gradients of the adapters by the scale
    schedule: Schedule = replace(DASSL, epochs=5, lr=1.5e-3, batch_size=16, warmup=0)

    def __post_init__(self):
        if self.start > self.end:
            raise ValueError(f"mma.start must be at most mma.end, {self.end}; got {self.start}")

    def fit(self, task):
        task.backbone.require("image.block.0")
        self.backbone, width, depth = task.backbone, task.backbone.width, task.backbone.depth
        self.blocks = {tower: [*range(min(self.start, d) - 1, min(self.end, d))] for tower, d in depth.items()}
        counts = {tower: len(own) for tower, own in self.blocks.items()}
        self.down = nn.ModuleDict({tower: maps(n, width[tower], self.width) for tower, n in counts.items()})
        self.shared = maps(max(counts.values()), self.width, self.width)
        self.up = nn.ModuleDict({tower: maps(n, self.width, width[tower]) for tower, n in counts.items()})
        self.retarget(task)

    def changed(self, tower):
        return self.backbone.taps(
            {f"{tower}.block.{i}": self.beside(tower, j) for j, i in enumerate(self.blocks[tower])}
        )

    def beside(self, tower, j):
        """What an adapter adds to its block, from what enters the block, normalised as the block does it."""
        norm = self.backbone.points[f"{tower}.block.{self.blocks[tower][j]}.norm1"]
        down, shared, up = self.down[tower][j], self.shared[j], self.up[tower][j]

        def tap(x, out):
            inner = shared(down(norm(self.graded(x, self.scale))).relu()).relu()
            return out + self.scale * self.graded(up(inner), 1 / self.scale)

        return tap

    def graded(self, x, factor):
        """The same numbers; as released, the gradient that passes here is multiplied."""
        if self.as_released and x.requires_grad:
            x = x.view_as(x)  # so that no other path through it is met
            x.register_hook(lambda grad: factor * grad)
        return x


def maps(n, inside, outside):
    """Linear maps as they start."""
    made = nn.ModuleList(nn.Linear(inside, outside) for _ in range(n))
    for one in made:
        nn.init.kaiming_normal_(one.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(one.bias)
    return made


@hookimpl
def methods():
    return {"mma": MMA}
