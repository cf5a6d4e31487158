"""Several prompts for each class, matched with an image's patches by optimal transport.

Source: Chen et al., PLOT: Prompt Learning with Optimal Transport for Vision-Language Models, arXiv:2210.01253.
Deviations: an image and a class stop the iterations by themselves; the release stops all pairs of a batch at once, by
their mean, so that an answer depends on its batch: ``as_released``. Local features are a transformer's patches behind
the last norm and the projection, as in the authors' code for ViT; with ResNet they are those of attention pooling.
Random views come from a cache of ten unless ``fresh``, patch by patch, which takes P times the room of embeddings.
Float32 instead of float16. On ImageNet the authors train for 50 epochs whatever the shots: ``schedule: {epochs: 50}``.
Words given by ``init`` get the noise of ``std``, or all prompts would stay equal. ``plot-plus-plus`` is of the authors'
code alone (PLOT++), and is held to no answers of theirs. They train the image's tokens first and then all, each for the
whole schedule; here all are trained at once. Their first words differ by dataset; these are those for general objects.
"""

from typing import ClassVar

import torch
from torch import nn

from adaptkit import Dense, Pixels, Pooled, Prompts, Schedule, hookimpl, unit
from adaptkit.io.ranges import Many, Positive, Size, Weight
from adaptkit.methods.prompt_learner import PromptLearner
from adaptkit.methods.schedule import COOP
from adaptkit.towers.prompting import Position, image_prompts

AT_ONCE = 2**24  # cosines of images, classes, patches and prompts in memory


class PLOT(PromptLearner):
    """Several trained prompts for each class, matched with patches by optimal transport."""

    n: Size = 16  # context words of each prompt; ignored with `init`
    count: Size = 4  # prompts of each class, N
    position: Position = "end"  # of the class name
    per_class: bool = False  # contexts for each class
    epsilon: Positive = 0.1  # weight of the plan's entropy
    iterations: Many = 100  # of Sinkhorn, at most
    threshold: Weight = 0.01  # mean change of the scaling at which they stop
    pooled: bool = False  # add the logits of image embedding and mean prompt, as the paper does on ImageNet
    as_released: bool = False  # stop the iterations of a whole batch at once
    schedule: Schedule = COOP

    exempt: ClassVar = {"beats_chance": "random words need more than that check's sixty steps at the paper's rate"}

    def needs(self):
        return {"patches": Dense(attention="own"), **({"x": Pooled()} if self.pooled else {})}

    def support_needs(self):
        how = {"views": 1 if self.fresh else self.views, "augment": "wide-crop-flip", "fresh": self.fresh}
        return {"views": Dense(attention="own", **how), **({"pooled_views": Pooled(**how)} if self.pooled else {})}

    def fit(self, task):
        self.backbone = task.backbone
        self.backbone.require("image.block.-1")
        n = len(self.init.split()) or self.n
        self.prompts = Prompts(task.backbone, task.classnames, n=n, init=self.init, position=self.position)
        shape = (self.count, len(task.classnames) if self.per_class else 1, self.prompts.n, task.backbone.width["text"])
        start = self.prompts.words() if self.init else torch.zeros(())
        contexts = start + self.std * torch.randn(shape, device=start.device)
        self.context = nn.Parameter(contexts if self.per_class else contexts[:, 0])  # (N, C, n, W) or (N, n, W)

    def retarget(self, task):
        if self.per_class:
            raise ValueError("per_class must be false where contexts serve other classes; got true")
        super().retarget(task)

    def forward(self, batch):
        return self.matched(batch.patches, batch.x if self.pooled else None)

    def matched(self, patches, x):
        """Logits ``(B, C)`` of local embeddings ``(B, P, D)`` and, if not `None`, of pooled ones."""
        raw = self.prompts.encode(self.context if self.per_class else self.context[:, None])  # (N, C, D)
        text = unit(raw)
        pairs = text.shape[0] * text.shape[1] * patches.shape[1]
        images = len(patches) if self.as_released else max(1, AT_ONCE // pairs)
        matched = torch.cat([self.similarity(part, text) for part in patches.split(images)])  # (B, C)
        logits = self.backbone.logit_scale * matched + self.backbone.logit_bias
        return logits if x is None else logits + self.backbone.logits(x, unit(raw.mean(0)))

    def similarity(self, patches, text):
        """Cosines summed over the best plan, ``(B, C)``, of ``(B, P, D)`` with ``(N, C, D)``."""
        cosines = torch.einsum("bpd,ncd->bcpn", patches, text)
        return (self.plan(cosines.detach()) * cosines).sum((-2, -1))

    @torch.no_grad()
    def plan(self, cosines):
        """Sinkhorn's plan between patches and prompts, each of equal mass, ``(B, C, P, N)``."""
        kernel = ((cosines - 1) / self.epsilon).exp()
        rows, columns = torch.ones_like(kernel[..., 0]), torch.ones_like(kernel[..., 0, :])  # u, v
        going = torch.ones_like(rows[..., :1], dtype=torch.bool)  # (B, C, 1)
        for _ in range(self.iterations):
            new = 1 / rows.shape[-1] / (kernel @ columns[..., None])[..., 0]
            change = (new - rows).abs().mean(-1, keepdim=True)
            rows = torch.where(going, new, rows)
            other = 1 / columns.shape[-1] / (rows[..., None, :] @ kernel)[..., 0, :]
            columns = torch.where(going, other, columns)
            going = going & ((change.mean() if self.as_released else change) >= self.threshold)
            if not going.any():
                break
        return rows[..., None] * columns[..., None, :] * kernel


class PLOTPP(PLOT):
    """`PLOT` of prompts with embeddings of an image under sets of trained tokens."""

    n: Size = 4  # context words of each prompt, of those in `inits` at most
    inits: tuple[str, ...] = ("a photo of a", "this is a photo", "this is picture of", "one picture of a")
    fresh: bool = True  # always: nothing above the tokens can be cached
    sets: Size = 4  # of tokens in the image tower, M
    n_image: Size = 2  # tokens of a set

    exempt: ClassVar = {}
    tunable = ("context", "visual")

    def needs(self):
        return {"pixels": Pixels()}

    def support_needs(self):
        return {"views": Pixels(views=1, augment="wide-crop-flip", fresh=True)}

    def fit(self, task):
        super().fit(task)
        self.backbone.require("image.tokens")
        if self.inits and not self.init:
            same = [Prompts(task.backbone, task.classnames, n=self.n, init=text) for text in self.inits]
            if len({prompts.n for prompts in same}) > 1:
                raise ValueError(f"inits must have n words, {self.n}, or equally many each; got {self.inits}")
            self.prompts, words = same[0], torch.stack([prompts.words() for prompts in same])  # (N, n, W)
            repeated = words[:, None].repeat(1, len(task.classnames), 1, 1) if self.per_class else words
            self.context = nn.Parameter(repeated)
        self.visual = nn.Parameter(self.std * torch.randn(self.sets, self.n_image, task.backbone.width["image"]))

    def forward(self, batch):
        raw = torch.stack([self.under(tokens, batch.pixels) for tokens in self.visual], 1)  # (B, M, D)
        return self.matched(unit(raw), unit(raw.mean(1)) if self.pooled else None)

    def under(self, tokens, pixels):
        with self.backbone.taps(image_prompts([tokens])):
            return self.backbone.encode_image(pixels)


@hookimpl
def methods():
    return {"plot": PLOT, "plot-plus-plus": PLOTPP}
