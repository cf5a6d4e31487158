"""No words and no normal images: a patch is anomalous that few of the other unlabelled images have the like of.

Source: Li et al., MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual Scoring of the
Unlabeled Images, arXiv:2401.16753.
Deviations: blocks are the last of each quarter of any tower, the authors' 5, 11, 17 and 23 of ViT-L. Of few images, a
share that rounds down to none of the others is one; the release answers nan there. Scores that are all equal stay so.
Interactions: the answers depend on all images at once; scores of images are between 0, the least of these, and 1.
"""

import math
from typing import Annotated

import torch
import torch.nn.functional as F

from adaptkit import Layers, Method, Pooled, Range, hookimpl, unit
from adaptkit.io.ranges import BlockNumber, Share, Size
from adaptkit.methods.evaluation.maps import stretched, with_scores
from adaptkit.methods.states import size_of, squared

AT_ONCE = 2**25  # distances in memory


class MuSc(Method):
    """Scores patches by their distance to the nearest ones of the other images."""

    scope = "set"
    answers = ("maps",)

    blocks: tuple[BlockNumber, ...] = ()  # of the image tower; none stands for the last of each quarter
    degrees: tuple[Annotated[int, Range(1, 99)], ...] = (1, 3, 5)  # sides of a patch's neighbourhood, odd
    most: Share = 0.3  # share of the other images, the nearest ones, by which a patch is scored
    neighbours: tuple[Size, ...] = (1, 2, 3)  # images alike, itself among them, whose scores are mixed; (1, 8, 9)

    def needs(self):
        return {"x": Pooled(), "layers": Layers(blocks=self.blocks or "quarters", tokens="patches")}

    def support_needs(self):
        return {}

    def fit(self, task):
        if not self.degrees or not self.neighbours or not all(degree % 2 for degree in self.degrees):
            raise ValueError(f"degrees must be odd, and neighbours some; got {self.degrees} and {self.neighbours}")
        self.size = size_of(task)

    def forward(self, batch):
        layers = batch.layers.transpose(0, 1)  # (K, N, P, W)
        scores = sum(self.scored(layers, degree).mean(0) for degree in self.degrees) / len(self.degrees)  # (N, P)
        maps = stretched(squared(scores), self.size, corners=True)
        return with_scores(maps, self.mixed(maps.flatten(1).amax(1), batch.x))

    def scored(self, layers, degree):
        """Mutual scores at one size of neighbourhood, ``(K, N, P)``."""
        return torch.stack([self.mutual(unit(pooled(layer, degree))) for layer in layers])

    def mutual(self, x):
        """The mean distance of patches, ``(N, P, W)``, to the nearest ones of the most alike other images."""
        count = max(1, int(self.most * (len(x) - 1)))
        if len(x) < 2:
            return torch.zeros_like(x[..., 0])
        step = max(1, AT_ONCE // (x.shape[1] ** 2 * len(x)))
        near = [self.nearest(x[i : i + step], x) for i in range(0, len(x), step)]
        near = torch.cat(near).masked_fill(torch.eye(len(x), dtype=torch.bool, device=x.device)[:, :, None], math.inf)
        return near.topk(count, dim=1, largest=False).values.mean(1)

    def nearest(self, some, x):
        """From each patch of some images to the nearest one of every image, ``(n, N, P)``."""
        return torch.cdist(some.flatten(0, 1), x.flatten(0, 1)).view(*some.shape[:2], *x.shape[:2]).amin(-1).mT

    def mixed(self, scores, x):
        """Scores between 0 and 1, ``(N,)``, with those of the images that are most alike."""
        scores = (scores - scores.amin()) / (scores.amax() - scores.amin()).clamp_min(1e-12)
        alike, found = x @ x.T, []
        for k in self.neighbours:
            top = alike.topk(min(k, len(x)), dim=1)
            found.append((top.values * scores[top.indices]).sum(1) / top.values.sum(1))
        return torch.stack(found).mean(0)


def pooled(layer, degree):
    """Patches ``(N, P, W)``, scaled image by image, as the mean over square neighbourhoods, zero beyond the edges."""
    normed = F.layer_norm(layer, layer.shape[-2:])
    side = math.isqrt(layer.shape[1])
    square = normed.transpose(1, 2).unflatten(2, (side, side))
    return F.avg_pool2d(square, degree, stride=1, padding=degree // 2).flatten(2).transpose(1, 2)


@hookimpl
def methods():
    return {"mu-sc": MuSc}
