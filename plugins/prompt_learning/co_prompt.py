"""MaPLe's tokens and an adapter behind each tower, held to what the frozen towers say of another view and a sentence.

Source: Roy and Etemad, Consistency-guided Prompt Learning for Vision-Language Models, arXiv:2306.01195.
Deviations: float32 instead of float16. Towers with fewer blocks than ``depth`` get tokens in all of them. RandAugment
leaves out half of its operations and acts on a crop; theirs acts on the whole image. One number is drawn for the
sentences of all classes at every step, as in the authors' code, and stands for as large a share of each class's, so
that classes may have different numbers of them. As there, a ReLU follows both maps of an adapter, and further words of
"a photo of a" than ``n`` stay as they are. Defaults are the authors' for ImageNet. Theirs for others, as (n, depth,
weight): Caltech101 and Stanford Cars (4, 12, 4), Oxford Pets and EuroSAT (2, 12, 0.1), Flowers102 (4, 9, 8), Food101
(4, 9, 0.5) with 5 epochs, FGVC Aircraft (4, 9, 2), SUN397 (4, 12, 8), DTD (2, 12, 8), UCF101 (4, 12, 2), and (2, 9, 1)
elsewhere.
Interactions: without a `file` the frozen text tower reads the task's own sentences.
"""

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pixels, Schedule, hookimpl, unit
from adaptkit.io.ranges import Share, Size, Weight
from adaptkit.methods.schedule import DASSL
from adaptkit.methods.tower_prompts import CoupledPrompts
from adaptkit.runs.plugins import pick


class CoPrompt(CoupledPrompts):
    """Trained tokens in both towers, an adapter behind each, held to the frozen ones."""

    n: Size = 4  # learned tokens in each tower
    depth: Size = 12  # blocks that get tokens of their own
    file: str = ""  # sentences by class, as the prompts `llm` read them; without, the task's are used
    weight: Weight = 8.0  # of the distances to the frozen towers' answers, lambda
    distance: Literal["cosine", "mse"] = "cosine"
    reduction: Size = 4  # width of the embedding over an adapter's hidden width
    image_share: Share = 0.1  # of the adapter's output in the embedding
    text_share: Share = 0.2
    augment: Literal["randaugment", "augmix", "wide-crop-flip"] = "randaugment"  # how views are drawn
    schedule: Schedule = replace(DASSL, epochs=8, lr=3.5e-3, batch_size=4)

    def support_needs(self):
        return {"views": Pixels(views=2, augment=self.augment, fresh=True)}  # one to learn from, one for the frozen

    def fit(self, task):
        super().fit(task)
        dim = task.backbone.dim
        hidden = max(1, dim // self.reduction)
        self.adapter_image, self.adapter_text = (
            nn.Sequential(nn.Linear(dim, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, dim, bias=False), nn.ReLU())
            for _ in range(2)
        )
        self.sentences = task.text_per_prompt  # C of (T_c, D), unit-norm
        if self.file:
            own = pick("prompts", "llm")(task.classnames, None, file=self.file)
            rows = unit(task.encode([s for each in own for s in each])).to(task.support.device)
            self.sentences = rows.split([len(each) for each in own])

    def prompted(self, pixels):
        x = super().prompted(pixels)
        return self.image_share * self.adapter_image(x) + (1 - self.image_share) * x

    def class_embeddings(self):
        text = super().class_embeddings()
        return self.text_share * self.adapter_text(text) + (1 - self.text_share) * text

    def loss(self, batch):
        views = batch.views  # drawn anew at every reading
        cross, text, image = self.parts(views[:, 0], views[:, -1], batch.targets)
        return cross + self.weight * (text + image)

    def parts(self, pixels, others, targets):
        """Cross-entropy, and the distances of class and image embeddings to the frozen towers'."""
        x, text = unit(self.prompted(pixels)), unit(self.class_embeddings())
        with torch.no_grad():
            frozen = unit(self.backbone.encode_image(others))
        cross = self.evaluation.loss(self.backbone.logits(x, text), targets)
        return cross, self.apart(text, self.drawn()), self.apart(x, frozen)

    def apart(self, a, b):
        return F.mse_loss(a, b) if self.distance == "mse" else 1 - F.cosine_similarity(a, b, eps=1e-7).mean()

    def draw(self):
        """Between 0 and 1: which sentence is held to, of each class."""
        return float(torch.rand(()))

    def drawn(self):
        """The frozen text tower's embedding of one sentence of each class, ``(C, D)``."""
        place = self.draw()
        return torch.stack([rows[min(int(place * len(rows)), len(rows) - 1)] for rows in self.sentences])

    def callbacks(self):
        from pytorch_lightning.callbacks import LambdaCallback

        return [LambdaCallback(on_train_end=lambda *_: self.finish())]

    def finish(self):
        """Keep no more of training than what was learned."""
        self.sentences = None


@hookimpl
def methods():
    return {"co-prompt": CoPrompt}
