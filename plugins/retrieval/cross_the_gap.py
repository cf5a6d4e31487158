"""A query crosses to the other tower before it is compared: its embedding is inverted into tokens of the other input.

An image becomes words that embed as the image does (``cross-the-gap-oti``), so that images are found by what a text
tower says; a text becomes patches of an image that embed as the text does (``cross-the-gap-ovi``). The towers were
trained to compare a text and an image: two embeddings of one tower are less well comparable.

Source: Mistretta et al., Cross the Gap: Exposing the Intra-modal Misalignment in CLIP via Modality Inversion,
arXiv:2502.04263.
Deviations: each query is inverted by itself, by a loss of its own, and all start from one draw, so that an answer does
not depend on the others; the release takes the mean over a batch, which AdamW mostly undoes (``as_released=True``).
The paper finds that inversion helps among images or among texts, and hurts between them: ``cross-the-gap-ovi`` searches
images all the same unless ``searched="texts"``.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pooled, Prompts, Retriever, Schedule, Sentence, hookimpl
from adaptkit.features.needs.tokens import before_patches
from adaptkit.io.ranges import Size, Weight
from adaptkit.methods.retriever import cosines

TOGETHER, MOST = 32, 10_000  # queries that are inverted at once; words of a sentence
PLACEHOLDER = "£"
INVERTED = {"lr": 0.02, "weight_decay": 0.01, "optimizer": "adamw", "decay": "constant"}


class Inverted(Retriever):
    """Cosine of items and queries that are inverted; a subclass says of what a query is, and how tokens are encoded."""

    n: Size = 1  # tokens that stand for a query
    std: Weight = 0.02  # of their start
    as_released: bool = False
    schedule: Schedule = Schedule(steps=150, **INVERTED)  # of each query

    asked_for, tower = "", ""

    def fit(self, task):
        super().fit(task)
        count = self.prepare(task.backbone)
        self.start = nn.Buffer(self.std * torch.randn(count, task.backbone.width[self.tower]))

    def prepare(self, backbone):
        """Make what `encode` needs, and say how many tokens it takes."""
        raise NotImplementedError

    def encode(self, tokens):
        """Embeddings of tokens, ``(B, n, W)`` to ``(B, D)``, by the frozen tower that they are of."""
        raise NotImplementedError

    @torch.enable_grad()
    def inverted(self, aim, start):
        """Tokens, ``(B, n, W)``, whose embeddings point where those of an aim do, ``(B, D)``."""
        tokens = nn.Parameter(start.detach().clone())
        optimizer = self.schedule.make([tokens])
        for _ in range(self.schedule.steps):
            losses = self.apart(tokens, aim)
            loss = losses.mean() if self.as_released else losses.sum()
            (tokens.grad,) = torch.autograd.grad(loss, [tokens])
            optimizer.step()
        return tokens.detach()

    def apart(self, tokens, aim):
        """One minus the cosine of tokens' embeddings and their aims, ``(B,)``."""
        return 1 - F.cosine_similarity(self.encode(tokens), aim, -1)

    def scores(self, asked, items):
        aims = getattr(asked, self.asked_for).split(TOGETHER)
        found = [self.encode(self.inverted(aim, self.start.expand(len(aim), -1, -1))) for aim in aims if len(aim)]
        return cosines(torch.cat(found) if found else aims[0], items.item)


class CrossTheGapOTI(Inverted):
    """An image as words that a text tower reads as that image."""

    template: str = "a photo of {}"

    asked_for, tower = "image", "text"

    def __post_init__(self):
        if self.template.count("{}") != 1:
            raise ValueError(f"template must hold one {{}}, where the tokens stand; got {self.template!r}")

    def needs(self):
        return {"image": Pooled(unit=False, of="image")}

    def prepare(self, backbone):
        before, after = self.template.split("{}")
        signs = " ".join([PLACEHOLDER] * self.n)

        def words(text):
            """What a sentence is made of, to learn or to keep."""
            return Prompts(backbone, [""], n=MOST, init=f"{text.strip()} {{}}", suffix="") if text.strip() else None

        kept = [0 if (of := words(text)) is None else of.n for text in (before, f"{before}{after}")]
        self.prompts = words(f"{before}{signs}{after}")
        count, given = self.prompts.n - kept[1], self.prompts.words()
        self.before, self.after = nn.Buffer(given[: kept[0]]), nn.Buffer(given[kept[0] + count :])
        return count

    def encode(self, tokens):
        around = [part.expand(len(tokens), -1, -1) for part in (self.before, self.after)]
        return self.prompts.encode(torch.cat([around[0], tokens, around[1]], 1)[:, None])[:, 0]


class CrossTheGapOVI(Inverted):
    """A text as patches that an image tower sees as that text."""

    searched: Literal["images", "texts"] = "images"  # what the gallery is of
    schedule: Schedule = Schedule(steps=1000, **INVERTED)

    asked_for, tower = "text", "image"

    def gallery_needs(self):
        return {"item": Sentence(unit=False)} if self.searched == "texts" else super().gallery_needs()

    def prepare(self, backbone):
        backbone.require("image.tokens")
        return self.n

    def encode(self, tokens):
        def shown(_, places):  # what an image of zeros leaves there: the class token, and positions
            first = before_patches(places.shape[1])
            spread = F.interpolate(tokens.mT, places.shape[1] - first, mode="nearest").mT
            return torch.cat([places[:, :first], places[:, first:] + spread], 1)

        size = self.backbone.preprocess.size
        with self.backbone.taps({"image.tokens": shown}):
            return self.backbone.encode_image(tokens.new_zeros(len(tokens), 3, size, size))


@hookimpl
def methods():
    return {"cross-the-gap-oti": CrossTheGapOTI, "cross-the-gap-ovi": CrossTheGapOVI}
