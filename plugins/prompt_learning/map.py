"""MAP: tokens in the image tower learn an image's attributes, which are matched with written ones of each class.

Source: Liu et al., Multi-modal Attribute Prompting for Vision-Language Models, arXiv:2403.00219.
Deviations: there is no released code, and of the paper only its account of the parts was at hand: learned words before
classes and before written attributes of theirs; learned tokens in the image tower, which in one block attend to the
attributes of those classes that are likely by then; and, beside the similarity of image and class, that of the plan
that moves the tokens' outputs onto a class's attributes (optimal transport, by Sinkhorn). What is inside could not be
checked: one head of attention and a residual network of two layers, both of which start as nothing; likely are classes
near the class token as norm and projection map it in that block; equal masses, costs of 1 - cosine, no gradient through
the plan; and every number, schedule included. Float32. A class with fewer attributes than asked for repeats its own.
Image towers with fewer blocks than ``block`` enhance the tokens at their end. SigLIP has no class token to go by.
Interactions: without a `file` the task's own sentences are the attributes, less the words that are learned.
"""

import math
from dataclasses import replace
from itertools import chain, cycle, islice

import torch
from torch import nn

from adaptkit import Prompts, Schedule, hookimpl, unit
from adaptkit.io.ranges import Many, Positive, Size, Weight
from adaptkit.methods.schedule import DASSL
from adaptkit.methods.tower_prompts import ImagePrompts
from adaptkit.runs.plugins import pick
from adaptkit.towers.prompting import image_prompts


class MAP(ImagePrompts):
    """Trained tokens for an image's attributes, matched with written ones of classes."""

    n: Size = 4  # learned words in front of names and attributes
    init: str = "a photo of a"  # words whose first n they start from; random if there are fewer
    tokens: Size = 4  # learned in the image tower, M
    attributes: Size = 4  # of each class, N, the first that are written
    file: str = ""  # attributes by class, as the prompts `llm` read descriptors
    block: Size = 7  # after so many blocks the tokens attend to attributes
    candidates: Size = 10  # classes whose attributes they attend to, those likely by then
    weight: Weight = 1.0  # of the attributes' similarity beside that of image and class, beta
    epsilon: Positive = 0.1  # weight of the plan's entropy
    iterations: Many = 100  # of Sinkhorn
    schedule: Schedule = replace(DASSL, epochs=5, lr=1e-3, batch_size=4)

    def fit(self, task):
        task.backbone.require("image.tokens", "image.norm", "image.projection")
        self.backbone, width, dim = task.backbone, task.backbone.width["image"], task.backbone.dim
        self.retarget(task)
        self.context = nn.Parameter(self.prompts.start(self.std))  # (n, W)
        self.visual = nn.ParameterList(self.start_tokens("image", self.tokens, 1))  # (M, W)
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(dim, width), nn.Linear(dim, width)
        self.refine = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        for parameter in chain(self.value.parameters(), self.refine[-1].parameters()):
            nn.init.zeros_(parameter)

    def retarget(self, task):
        given = task.prompts
        if self.file:
            given = pick("prompts", "llm")(task.classnames, None, file=self.file, form="descriptors")
        written = ([text.removeprefix(f"{self.init} ").rstrip(".") for text in own] for own in given)
        several = chain.from_iterable(islice(cycle(own), self.attributes) for own in written)
        init = self.init if self.n <= len(self.init.split()) else ""
        self.prompts = Prompts(task.backbone, [*task.classnames, *several], n=self.n, init=init)

    def image_tokens(self):
        return list(self.visual)

    def forward(self, batch):
        rows = unit(self.prompts.encode(self.context)).unflatten(0, (1 + self.attributes, -1))
        names, attributes = rows[0], rows[1:].flatten(0, 1).unflatten(0, (-1, self.attributes))  # (C, D), (C, N, D)
        x, seen = self.looked_at(batch.pixels, names, attributes)
        matched = self.backbone.logit_scale * self.similarity(seen, attributes)
        return self.backbone.logits(x, names) + self.weight * matched

    def looked_at(self, pixels, names, attributes):
        """Images, ``(B, D)``, and what the tokens learned of them, ``(B, M, D)``, unit-norm both."""
        kept = []

        def enhance(_, tokens):
            own = self.enhanced(tokens[:, -self.tokens :], self.joint(tokens[:, 0]), names, attributes)
            return torch.cat([tokens[:, : -self.tokens], own], 1)

        at, taps = min(self.block, self.backbone.depth["image"]), image_prompts(self.image_tokens())
        end = {"image.block.-1": lambda _, tokens: kept.append(tokens[:, -self.tokens :]) or tokens}
        with self.backbone.taps({**taps, f"image.block.{at - 1}": enhance}), self.backbone.taps(end):
            x = self.backbone.encode_image(pixels)
        return unit(x), self.joint(kept[0])

    def joint(self, tokens):
        """Tokens of the image tower in the joint space, unit-norm."""
        points = self.backbone.points
        return unit(points["image.projection"](points["image.norm"](tokens)))

    def enhanced(self, own, x, names, attributes):
        """Tokens, ``(B, M, W)``, after they attended to attributes of the classes nearest to x, ``(B, D)``."""
        likely = (x @ names.T).topk(min(self.candidates, len(names)), -1).indices  # (B, K)
        written = attributes[likely].flatten(1, 2)  # (B, K * N, D)
        scores = self.query(own) @ self.key(written).mT / own.shape[-1] ** 0.5  # (B, M, K * N)
        own = own + scores.softmax(-1) @ self.value(written)
        return own + self.refine(own)

    def similarity(self, seen, attributes):
        """Cosines summed over the plan that moves an image's attributes onto a class's, ``(B, C)``."""
        cosines = torch.einsum("bmd,cnd->bcmn", seen, attributes)
        return (self.plan(cosines.detach()) * cosines).sum((-2, -1))

    def plan(self, cosines):
        """Sinkhorn's plan of least cost, 1 - cosine, between equal masses, ``(B, C, M, N)``."""
        scores = (cosines - 1) / self.epsilon
        masses = [math.log(count) for count in cosines.shape[-2:]]
        columns = torch.zeros_like(scores[..., :1, :])
        for _ in range(self.iterations):  # in logarithms, which no epsilon is too small for
            rows = -(scores + columns).logsumexp(-1, keepdim=True) - masses[0]
            columns = -(scores + rows).logsumexp(-2, keepdim=True) - masses[1]
        return (scores + rows + columns).exp()


@hookimpl
def methods():
    return {"map": MAP}
