"""TaI-DPT: words for each class that learn from captions, which stand for images, to tell several classes in one image.

Two contexts are learned: one meets a caption's embedding, the other the embeddings of all its tokens, of which those
count most that are most like the class. Images are answered by their embedding and by their patches in the same way.

Source: Guo et al., Texts as Images in Prompt Tuning for Multi-Label Image Recognition, arXiv:2211.12739.
Deviations: without a `file` of captions, sentences that name one to three classes, drawn at random, take their place;
the authors' are MS-COCO's. A caption has a class's label where it says its name; theirs knows synonyms. Regions are
patches that attend to themselves alone, in a transformer, too; in the release, a ResNet pools without positions. The
answer is the mean of both kinds of logits, theirs their sum. Float32.
Interactions: F1 says nothing of ranks. Classes that it did not learn get the mean context of those it did.
"""

import re
from dataclasses import replace
from typing import ClassVar

import torch
from torch import nn

from adaptkit import Dense, Images, Method, Pooled, Prompts, Schedule, hookimpl, unit
from adaptkit.io.paths import expanded
from adaptkit.io.ranges import Positive, Size, Weight
from adaptkit.methods.schedule import DASSL
from adaptkit.towers.sentences import by_token


class TaIDPT(Method):
    """Two contexts for each class, trained on captions by a ranking loss."""

    answers: ClassVar = ("multi-label", "classification")
    exempt: ClassVar = {"beats_chance": "random words hardly move in that check's sixty steps at the paper's rate"}

    file: str = ""  # captions, one a line
    captions: Size = 1000  # to write without a file
    n: Size = 16  # context words
    std: Weight = 0.02  # of the random start
    scale: Weight = 4.0  # from cosine to logit
    of_words: Positive = 50.0  # how much the likest tokens of a caption count
    of_regions: Positive = 40.0  # how much the likest patches of an image count
    schedule: Schedule = replace(DASSL, epochs=20, lr=1e-4, batch_size=64)

    def needs(self):
        return {"x": Pooled(), "regions": Dense()}

    def support_needs(self):
        return {}

    def fit(self, task):
        task.backbone.require("text.norm", "text.projection")
        self.backbone = task.backbone
        self.prompts = Prompts(task.backbone, task.classnames, n=self.n)
        shape = len(task.classnames), self.n, task.backbone.width["text"]
        self.whole, self.local = (nn.Parameter(self.std * torch.randn(shape)) for _ in range(2))  # (C, n, W)
        names = [name.replace("_", " ").lower() for name in task.classnames]
        sentences = [sentence(names) for _ in range(self.captions)]
        if self.file and not expanded(self.file).is_file():
            raise ValueError(f"tai-dpt.file must be a file of captions, one a line; got {self.file!r}")
        if self.file:
            sentences = expanded(self.file).read_text(encoding="utf-8").splitlines()
        said = [[bool(re.search(rf"\b{re.escape(name)}\b", one.lower())) for name in names] for one in sentences]
        kept = [i for i, has in enumerate(said) if any(has)]
        if not kept:
            raise ValueError(f"a caption must name a class; got {len(sentences)} in {self.file!r}, none of which does")
        self.tokens = task.backbone.tokenize([sentences[i] for i in kept])
        self.labels = torch.tensor([said[i] for i in kept]).long()  # (N, C)

    def retarget(self, task):
        for name in ("whole", "local"):
            mean = getattr(self, name).detach().mean(0).expand(len(task.classnames), -1, -1)
            setattr(self, name, nn.Parameter(mean.clone(), requires_grad=False))
        self.prompts = self.prompts.of(task.classnames)

    def training_images(self, task):
        return Images.from_arrays(torch.zeros(len(self.labels), 1), self.labels).to(task.support.device)  # by number

    @torch.no_grad()
    def read(self, tokens):
        """Embeddings of captions and of all their tokens, ``(B, D)`` and ``(B, L, D)``, and which of these count."""
        x, words, ends = by_token(self.backbone, tokens)
        return unit(x), unit(words), torch.arange(words.shape[1]) <= ends[:, None].cpu()

    def class_embeddings(self):
        """Of both contexts, ``(C, D)`` each."""
        return [unit(self.prompts.encode(context)) for context in (self.whole, self.local)]

    def logits(self, x, parts, sharpness, real=None):
        """Of embeddings and of their parts, ``(B, C)`` each."""
        whole, local = self.class_embeddings()
        cosines = parts @ local.T  # (B, L, C)
        weighed = cosines if real is None else cosines.masked_fill(~real[..., None].to(x.device), -torch.inf)
        return self.scale * x @ whole.T, self.scale * ((sharpness * weighed).softmax(1) * cosines).sum(1)

    def forward(self, batch):
        return sum(self.logits(batch.x, batch.regions, self.of_regions)) / 2

    def loss(self, batch):
        tokens = {name: value[batch.index] for name, value in self.tokens.items()}
        x, words, real = self.read(tokens)
        return sum(ranked(logits, batch.labels) for logits in self.logits(x, words, self.of_words, real))


def ranked(logits, labels):
    """What each label that is missing is above one that is there, less a margin of 1; summed, mean over items."""
    has = labels.bool()
    over = (1 - logits[:, :, None] + logits[:, None]).clamp_min(0)  # (B, has, lacks)
    return (over * (has[:, :, None] & ~has[:, None])).sum((1, 2)).mean()


def sentence(names):
    """A sentence about one to three classes, drawn at random."""
    drawn = torch.randperm(len(names))[: int(torch.randint(1, 4, ()))].tolist()
    return f"a photo of {' and '.join(f'a {names[i]}' for i in drawn)}."


@hookimpl
def methods():
    return {"tai-dpt": TaIDPT}
