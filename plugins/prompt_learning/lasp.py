"""Context words whose class embeddings are to be told apart by hand-written sentences as text, in groups, images aside.

A learned sentence of each class is classified among the class embeddings of every template: text to text. That needs
class names alone, so `virtual` ones take part; given the new classes of base-to-new, this is LASP-V.

Source: Bulat and Tzimiropoulos, LASP: Text-to-Text Optimization for Language-Aware Soft Prompting of Vision & Language
Models, arXiv:2210.01115.
Deviations: the paper could not be read again for `weight`, `groups` and the schedule, which is CoCoOp's. The release
has one group, ``weight`` 10 (5 on some datasets), and on most datasets ``schedule: {epochs: 50, lr: 0.032, batch_size:
32, warmup: 5}``, 25 epochs on some, 300 on EuroSAT. Its loss chooses among learned sentences by the written one, not
the other way round, and adds noise to written embeddings in every other step: ``as_released``. The correction starts at
zero. Float32 instead of half precision. Without ``norms`` views come from a cache of ten unless ``fresh``.
"""

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pixels, Pooled, Prompts, Schedule, hookimpl, unit
from adaptkit.io.ranges import Share, Size, Weight
from adaptkit.io.text import template
from adaptkit.methods.ops import as_queries
from adaptkit.methods.prompt_learner import PromptLearner
from adaptkit.methods.schedule import COCOOP
from adaptkit.towers.once import Once

WRITTEN = (
    "a photo of a {}, a type of flower.|a photo of a person doing {}.|a centered satellite photo of {}."
    "|a photo of a {}, a type of aircraft.|{} texture.|itap of a {}.|itap of the {}.|a origami {}."
    "|a photo of the large {}.|art of the {}.|a photo of the small {}.|a photo of a {}.|a photo of the hard to see {}."
    "|a rendering of a {}.|a photo of the {}.|a {} in a video game.|a rendering of the {}.|a rendition of the {}."
    "|a photo of the clean {}.|a photo of a large {}.|a photo of many {}.|a bad photo of the {}."
    "|a cropped photo of the {}.|a pixelated photo of the {}.|a bright photo of the {}.|a good photo of the {}."
    "|a close-up photo of the {}.|a low resolution photo of the {}.|a jpeg corrupted photo of the {}."
    "|a cropped photo of a {}.|a low resolution photo of a {}.|a blurry photo of a {}.|a pixelated photo of a {}."
    "|a good photo of a {}."
)


class LASP(PromptLearner):
    """Trained context words in groups, told apart by hand-written sentences."""

    n: Size = 4  # context words; ignored with `init`
    init: str = "a photo of a"  # words to start from; "" for a random start
    groups: Size = 3  # G, of context words; each is held to its own part of the templates
    templates: tuple[str, ...] = tuple(WRITTEN.split("|"))  # hand-written sentences, a class's name in place of {}
    virtual: tuple[str, ...] = ()  # names of further classes, which have no images
    weight: Weight = 20.0  # of the text-to-text loss
    norms: bool = True  # train the image tower's LayerNorms, too
    pace: Share = 0.1  # at which they learn, of the schedule's rate
    correction: bool = True  # learn a vector that is added to all class embeddings
    as_released: bool = False  # choose among learned sentences, with noise
    schedule: Schedule = COCOOP
    tunable = ("contexts",)

    def needs(self):
        return {"pixels": Pixels()} if self.norms else {"x": Pooled()}

    def support_needs(self):
        fresh = {"views": Pixels(views=1, augment="wide-crop-flip", fresh=True)}
        return fresh if self.norms else super().support_needs()

    def fit(self, task):
        self.backbone = task.backbone
        if self.groups > len(self.templates):
            raise ValueError(f"groups must be at most the templates, {len(self.templates)}; got {self.groups}")
        names = (*task.classnames, *self.virtual)  # C', the first C of which are asked for
        self.prompts = Prompts(task.backbone, names, n=len(self.init.split()) or self.n, init=self.init)
        self.contexts = nn.ParameterList(self.prompts.start(self.std) for _ in range(self.groups))  # (n, W) each
        self.added = nn.Parameter(torch.zeros(1, task.backbone.dim), requires_grad=self.correction)
        written = [template(t, "templates").replace("{}", n.replace("_", " ")) for t in self.templates for n in names]
        self.written = Once()  # of use in training alone, and so not saved
        self.written.answer = unit(task.encode(written)).to(task.support.device).unflatten(0, (-1, len(names)))
        self.classes, blocks = len(task.classnames), range(task.backbone.depth.get("image", 1) if self.norms else 0)
        task.backbone.require(*(f"image.block.{i}.norm1" for i in blocks))
        self.names = [f"image.block.{i}.norm{j}.{p}" for i in blocks for j in (1, 2) for p in ("weight", "bias")]
        self.tuned = nn.ParameterList(task.backbone.weight(name).clone() for name in self.names)

    def parameter_groups(self, parameters):
        rest = [p for p in parameters if all(p is not norm for norm in self.tuned)]
        return [{"params": rest}, {"params": [*self.tuned], "lr": self.pace * self.schedule.lr}]

    def retarget(self, task):
        super().retarget(task)
        self.classes, self.written = len(task.classnames), Once()

    def learned(self):
        """Embeddings of the learned sentences, ``(G, C', D)``, unit-norm."""
        return unit(self.prompts.encode_each(torch.stack([*self.contexts])) + self.added)

    def scored(self, images, learned):
        text = (unit(learned.mean(0)) if self.groups > 1 else learned[0])[: self.classes]  # (C, D)
        if not self.norms:
            return self.backbone.logits(images.x, text)
        with self.backbone.weights(dict(zip(self.names, self.tuned, strict=True))):
            return self.backbone.logits(unit(self.backbone.encode_image(images.pixels)), text)

    def forward(self, batch):
        return self.scored(batch, self.learned())

    def loss(self, batch):
        learned = self.learned()
        seen = self.evaluation.loss(self.scored(as_queries(batch, self.needs()), learned), batch.targets)
        return seen + self.weight * self.text_to_text(learned)

    def text_to_text(self, learned):
        """Cross-entropy of the learned sentences among the written ones, nats, a scalar (eq. 3)."""
        written, losses = self.written.answer, []
        if self.as_released and torch.rand(()) < 0.5:
            written = written + 0.05 * torch.randn_like(written)
        for g, own in enumerate(learned):
            logits = self.backbone.logit_scale * own @ written[g :: self.groups].mT  # (L, C', C'): learned, written
            target = torch.arange(len(own), device=own.device).expand(len(logits), -1)
            losses.append(F.cross_entropy(logits if self.as_released else logits.mT, target))  # over axis 1
        return torch.stack(losses).mean()


@hookimpl
def methods():
    return {"lasp": LASP}
