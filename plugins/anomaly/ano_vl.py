"""Patches of a second path that attends by values, between words for what is whole and what is damaged.

Source: Deng et al., AnoVL: Adapting Vision-Language Models for Unified Zero-shot Anomaly Localization,
arXiv:2308.15939.
Deviations: what trains on each test image, the paper's adapter of patch tokens with its own pseudo-labels, is not here;
nor are its sentences about domains: the sentences are WinCLIP's. Blocks are the last of each quarter of any tower; the
authors read 3, 6 and 9 of 12. In the release all blocks' tokens are one tensor, that of the last: ``as_released=True``.
An image's score is the mean of its own and the map's maximum.
"""

from typing import ClassVar

from adaptkit import Pooled, ValuePath, hookimpl
from adaptkit.io.ranges import BlockNumber, Size
from adaptkit.methods.evaluation.maps import with_scores
from adaptkit.methods.states import BetweenStates, squared


class AnoVL(BetweenStates):
    """Each patch, of several blocks, between words for normal and for damaged."""

    exempt: ClassVar = {"beats_chance": "the toy's text tower knows one sentence for a class, and none of its damage"}

    blocks: tuple[BlockNumber, ...] = ()  # of the image tower; none stands for the last of each quarter
    last: Size = 12  # blocks that the second path has at the end of the tower, at most all
    as_released: bool = False

    def needs(self):
        blocks = (-1,) if self.as_released else self.blocks or "quarters"
        return {"x": Pooled(), "path": ValuePath(blocks=blocks, last=self.last)}

    def support_needs(self):
        return {}

    def forward(self, batch):
        patches = self.anomalous(batch.path).mean(1)  # (B, P)
        scores = (self.anomalous(batch.x) + patches.amax(1)) / 2
        return with_scores(self.stretched(squared(patches)), scores)


@hookimpl
def methods():
    return {"ano-vl": AnoVL}
