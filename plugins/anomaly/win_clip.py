"""Windows of patches between words for what is whole and what is damaged, zero-shot or beside a few normal images.

Source: Jeong et al., WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation, arXiv:2303.14814.
Deviations: the authors released no code; the release is anomalib's, whose list of sentences has one twice, "of the" in
place of "of a": ``as_released=True``. Pooled features and all windows are read of one image, without the augmentation
that some copies of it have. Where a task has several objects, their sentences are averaged. Patches must be a square.
Interactions: `win-clip-plus` learns from normal images alone and passes over anomalous ones in its support.
"""

import math
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F

from adaptkit import Dense, Pooled, Range, Regions, hookimpl, unit
from adaptkit.features.needs.regions import squares
from adaptkit.methods.evaluation.maps import with_scores
from adaptkit.methods.states import STATE_TEMPLATES, BetweenStates

LEAST = 1e-12  # what is divided by


class WinCLIP(BetweenStates):
    """Each patch by the windows that cover it, between words for normal and damaged."""

    exempt: ClassVar = {"beats_chance": "the toy's text tower knows one sentence for a class, and none of its damage"}

    scales: tuple[Annotated[int, Range(1, 1_000)], ...] = (2, 3)  # sides of windows, patches
    as_released: bool = False

    def needs(self):
        return {"x": Pooled(), **{f"windows_{s}": Regions(side=s) for s in self.scales}}

    def support_needs(self):
        return {}

    def fit(self, task):
        if not self.scales:
            raise ValueError("scales must be at least one side of a window; got none")
        super().fit(task)

    def templates(self):
        if not self.as_released:
            return STATE_TEMPLATES
        return [text.replace("corrupted photo of a", "corrupted photo of the") for text in STATE_TEMPLATES]

    def forward(self, batch):
        scores, grid = self.zero_shot(batch)
        return with_scores(self.stretched(grid), scores)

    def zero_shot(self, batch):
        """How likely each image, ``(B,)``, and each of its patches, ``(B, h, w)``, is anomalous."""
        scores = self.anomalous(batch.x)
        grids = [self.covered(self.anomalous(getattr(batch, f"windows_{s}")), s) for s in self.scales]
        return scores, harmonic([scores[:, None, None].expand_as(grids[0]), *grids])

    def covered(self, scores, side):
        """Windows' scores, ``(B, M)``, as the harmonic mean over those that cover a patch, ``(B, h, w)``."""
        grid = self.grid_of(scores.shape[1], side)
        windows = squares(grid, side).to(scores.device)
        own = F.one_hot(windows, grid[0] * grid[1]).sum(1).to(scores)  # (M, h * w)
        return (own.sum(0) / (1 / scores.clamp_min(LEAST) @ own)).unflatten(1, grid)

    def grid_of(self, windows, side):
        """Rows and columns of patches, of which there are so many windows."""
        rows = math.isqrt(windows) + side - 1
        return rows, rows


class WinCLIPPlus(WinCLIP):
    """`WinCLIP`, and how far patches and windows are from those of normal images."""

    exempt: ClassVar = {}

    def needs(self):
        return {**super().needs(), "patches": Dense(attention="own", projected=False, unit=False)}

    def support_needs(self):
        return {name: need for name, need in self.needs().items() if name != "x"}

    def fit(self, task):
        super().fit(task)
        normal = task.support[~task.support.targets.flatten(1).any(1)]
        if not len(normal):
            raise ValueError(f"support must have a normal image; got {len(task.support)} anomalous ones")
        self.register_buffer("patches", self.normed(normal.patches).flatten(0, 1))
        for s in self.scales:
            self.register_buffer(f"windows_{s}", getattr(normal, f"windows_{s}").flatten(0, 1))

    def normed(self, patches):
        """Unit-norm patches behind the tower's last norm, where it has one, ``(B, P, W)``."""
        norm = self.backbone.points.get("image.norm") if hasattr(self.backbone, "points") else None
        return unit(norm.untapped(patches) if norm else patches)

    def forward(self, batch):
        scores, grid = self.zero_shot(batch)
        far = self.association(batch)
        return with_scores(self.stretched((grid + far) / 2), (scores + far.flatten(1).amax(1)) / 2)

    def association(self, batch):
        """How far patches and windows are from normal ones at the same scale, the mean over scales, ``(B, h, w)``."""
        grids = [
            self.covered(farthest(getattr(batch, f"windows_{s}"), getattr(self, f"windows_{s}")), s)
            for s in self.scales
        ]
        own = farthest(self.normed(batch.patches), self.patches).view_as(grids[0])
        return torch.stack([own, *grids]).mean(0)


def farthest(x, known):
    """Half of one minus the cosine to the nearest of the known, ``(B, M)``."""
    return (1 - (x @ known.T).amax(-1)) / 2


def harmonic(parts):
    """Harmonic mean of scores above 0."""
    return len(parts) / sum(1 / part.clamp_min(LEAST) for part in parts)


@hookimpl
def methods():
    return {"win-clip": WinCLIP, "win-clip-plus": WinCLIPPlus}
