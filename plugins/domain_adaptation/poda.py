"""PODA: images of an unseen domain, made of those at hand and a sentence about it, and a head that is tuned on them.

The tokens that leave a low block of the image tower are normalised per image and channel, and get another mean and
deviation: a style, which is learned for each support image so that its embedding comes near the sentence about the
target. Then a linear head, which starts at the text, learns from support images in each other's styles.

Source: Fahes et al., PODA: Prompt-driven Zero-shot Domain Adaptation, arXiv:2212.03241.
Deviations: the authors adapt a ResNet behind its first layer, whose maps are positive again once they have their style;
here are the patches of a transformer, which may be negative. They segment streets; this classifies, as they do on birds
and paintings, and the head's start, its schedule and that every image gets a style are our reading. Float32.
Interactions: styles are learned in batches, whose mean is the loss, so that the step of each depends on their size.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Method, Pixels, Pooled, Schedule, hookimpl, unit
from adaptkit.features.needs.tokens import before_patches
from adaptkit.io.ranges import Size

STYLES = Schedule(steps=100, lr=1.0, batch_size=16, optimizer="sgd", weight_decay=1e-4, decay="constant")


@dataclass(frozen=True)
class Mining:
    """How styles are learned, and put on."""

    schedule: Schedule = STYLES
    positive: bool = False  # maps that are cut at zero once they have their style

    @torch.enable_grad()
    def __call__(self, content, encode, text):
        """Styles of B images that bring their embeddings near a text, ``(B, 1, W)`` each, and the loss of every step.

        Content are tokens, ``(B, T, W)``, `encode` makes embeddings of them, ``(B, D)``, the text is ``(D,)``.
        """
        style, losses = [part.clone().requires_grad_() for part in moments(content)], []
        optimizer = self.schedule.make(style)
        for _ in range(self.schedule.steps):
            style[1].data.clamp_(min=0)
            x = encode(self.styled(content, *style))
            losses.append((1 - F.cosine_similarity(x, text.expand_as(x))).mean())
            optimizer.zero_grad()
            for part, gradient in zip(style, torch.autograd.grad(losses[-1], style), strict=True):
                part.grad = gradient
            optimizer.step()
        return *(part.detach() for part in style), [loss.item() for loss in losses]

    def styled(self, content, mean, deviation):
        """The content in another style."""
        own_mean, own_deviation = moments(content)
        out = (content - own_mean) / own_deviation * deviation + mean
        return out.relu() if self.positive else out


class PODA(Method):
    """A linear head, trained on support images in styles that a sentence asks for."""

    target: tuple[str, ...] = ("a painting.",)  # about the target domain; their raw embeddings are averaged
    block: Size = 1  # of the image tower, from 1, behind which images get their style
    styles: Schedule = STYLES  # of an image's style; its steps, rate, decay and batch count
    schedule: Schedule = Schedule(steps=200, lr=1e-2, batch_size=32, optimizer="sgd")

    def needs(self):
        return {"x": Pooled()}

    def support_needs(self):
        return {"views": Pixels(views=1, augment="wide-crop-flip", fresh=True)}

    def fit(self, task):
        self.backbone, self.point = task.backbone, f"image.block.{self.block - 1}"
        task.backbone.require(self.point), task.require_support("PODA")
        text, pixels = unit(task.encode(list(self.target)).mean(0)).to(task.text), task.support.views[:, 0]
        styles = [self.mined(part, text) for part in pixels.split(self.styles.batch_size)]
        for name, rows in zip(("means", "deviations"), zip(*styles, strict=True), strict=True):
            setattr(self, name, nn.Buffer(torch.cat(rows), persistent=False))  # (S, 1, W)
        self.head = nn.Linear(*task.text.mT.shape)
        self.head.weight.data, self.head.bias.data[:] = task.backbone.logit_scale * task.text, 0

    def mined(self, pixels, text):
        """Styles of some images, ``(B, 1, W)`` each."""
        kept = []
        with torch.no_grad(), self.backbone.taps({self.point: lambda _, out: kept.append(out) or out}):
            self.backbone.encode_image(pixels)
        first = before_patches(kept[0].shape[1])

        def encode(patches):
            whole = torch.cat([kept[0][:, :first], patches], 1)
            with self.backbone.taps({self.point: lambda _, out: whole}):
                return self.backbone.encode_image(pixels)

        return Mining(self.styles)(kept[0][:, first:], encode, text)[:2]

    def forward(self, batch):
        return self.head(batch.x)

    def loss(self, batch):
        drawn = torch.randint(len(self.means), (len(batch),))
        mean, deviation = self.means[drawn], self.deviations[drawn]

        def dress(_, out):
            first = before_patches(out.shape[1])
            return torch.cat([out[:, :first], Mining().styled(out[:, first:], mean, deviation)], 1)

        with torch.no_grad(), self.backbone.taps({self.point: dress}):
            x = unit(self.backbone.encode_image(batch.views[:, 0]))
        return self.evaluation.loss(self.head(x), batch.labels)


def moments(tokens):
    """Mean and deviation over positions, ``(B, T, W)`` to ``(B, 1, W)`` each."""
    return tokens.mean(1, keepdim=True), (tokens.var(1, keepdim=True) + 1e-5).sqrt()


@hookimpl
def methods():
    return {"poda": PODA}
