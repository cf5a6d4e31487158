"""AD-CLIP: words in front of a class name that are made of an image's style and content, for labels of another domain.

The support is the source domain, labelled; the pool is the target domain, without labels. What stands in front of a
name: a token of the source's style and one of the target's from every block of the image tower, and tokens of the
image's content. An image to answer has no source image beside it: a second projector, trained for that, makes the
source's tokens of the image's own style.

Source: Singha et al., AD-CLIP: Adapting Domains in Prompt Space Using CLIP, arXiv:2308.05659.
Deviations: the release scales each class's probabilities over the batch to unit norm before it takes their entropy;
here it is the entropy of each image's answer, as the paper writes, unless ``as_released``. As in the release, tokens of
content are all equal, means and deviations enter the second projector as averages of neighbouring channels, and the
divergence is between softmaxes over classes of each number of the embeddings. A source image meets a random target
image. Lengths, rate and widths inside projectors are our reading. Random views come from a cache of ten. Float32.
Interactions: the text tower runs for each image and class.
"""

from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Method, Pooled, Prompts, Schedule, hookimpl, unit
from adaptkit.features.needs.statistics import BlockStatistics
from adaptkit.io.ranges import Size, Weight
from adaptkit.methods.ops import as_queries, entropy
from adaptkit.methods.schedule import DASSL


class Projectors(nn.ModuleList):
    """A projector for each block: ``(B, K, W)`` to words, ``(B, K, W')``."""

    def __init__(self, blocks, *widths, between=nn.Identity):
        def projector():
            first, *rest = (nn.Linear(*ends) for ends in pairwise(widths))
            return nn.Sequential(first, between(), *rest)

        super().__init__(projector() for _ in range(blocks))

    def forward(self, x):
        return torch.stack([layer(own) for layer, own in zip(self, x.unbind(1), strict=True)], 1)


class ADCLIP(Method):
    """Words of style and content, trained on a labelled and an unlabelled domain."""

    n: Size = 4  # tokens of content
    hidden: Size = 256  # width inside the projectors of style
    style_hidden: Size = 384  # width inside the projectors that stand in for a source image
    style: Weight = 0.1  # of the distance between the tokens of both kinds of projectors
    confident: Weight = 0.01  # of the entropy of answers on the target
    align: Weight = 1.0  # of the divergence between class embeddings of source and target
    as_released: bool = False
    schedule: Schedule = replace(DASSL, epochs=10, lr=1e-2, batch_size=4)

    def needs(self):
        return {"x": Pooled(), "statistics": BlockStatistics()}

    pool_needs = needs  # of the domain that is asked

    def support_needs(self):
        views = {"views": 10, "augment": "wide-crop-flip"}
        return {"views": Pooled(**views), "statistics": BlockStatistics(**views)}

    def fit(self, task):
        task.backbone.require("image.block.0")
        self.backbone, self.target, width = task.backbone, task.require_pool("ad-clip").load(), task.backbone.width
        blocks, ends = task.backbone.depth["image"], (width["image"], width["text"])
        self.prompts = Prompts(task.backbone, task.classnames, n=2 * blocks + self.n)
        self.domain = Projectors(blocks, ends[0], self.hidden, ends[1])
        self.source = Projectors(blocks, ends[0], self.style_hidden, ends[1], between=nn.ReLU)
        self.content, self.join = Projectors(blocks, *ends), nn.Linear(blocks, 1)

    def retarget(self, task):
        self.prompts = self.prompts.of(task.classnames)

    def tokens(self, statistics):
        """Of a domain's style by ``(B, K, 2, W)`` statistics, and what stands in for the source's, ``(B, K, W')``."""
        paired = F.avg_pool1d(statistics.flatten(2), 2)  # (B, K, W): half of means, half of deviations
        return self.domain(statistics.mean(2)), self.source(paired)

    def text(self, source, target, statistics):
        """Class embeddings of each image, ``(B, C, D)``, from tokens of both domains and its own content."""
        content = self.join(self.content(statistics[:, :, 0]).mT).mT  # (B, 1, W')
        return unit(self.prompts.encode_each(torch.cat([source, target, content.expand(-1, self.n, -1)], 1)))

    def forward(self, batch):
        own, source = self.tokens(batch.statistics)
        return self.backbone.logits(batch.x, self.text(source, own, batch.statistics))

    def loss(self, batch):
        rows = torch.randint(len(self.target), (len(batch),))
        return sum(self.parts(as_queries(batch, self.needs()), self.target[rows].to(batch.device)))

    def parts(self, source, target):
        """Cross-entropy on the source, and what style, target and class embeddings add, each times its weight."""
        (of_source, stand_in), (of_target, _) = self.tokens(source.statistics), self.tokens(target.statistics)
        texts = [self.text(of_source, of_target, images.statistics) for images in (source, target)]
        yield self.evaluation.loss(self.backbone.logits(source.x, texts[0]), source.targets)
        yield self.style * F.mse_loss(of_source, stand_in)
        yield self.confident * self.doubt(self.backbone.logits(target.x, texts[1]))
        a, b = (text.log_softmax(1) for text in texts)
        yield self.align * F.kl_div(a, b, log_target=True, reduction="batchmean")

    def doubt(self, logits):
        """Entropy of answers, mean over images, nats."""
        if not self.as_released:
            return entropy(logits).mean()
        return -torch.xlogy(p := F.normalize(logits.softmax(1), dim=0), p).sum(1).mean()

    def callbacks(self):
        from pytorch_lightning.callbacks import LambdaCallback

        return [LambdaCallback(on_train_end=lambda *_: setattr(self, "target", None))]


@hookimpl
def methods():
    return {"ad-clip": ADCLIP}
