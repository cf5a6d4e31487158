"""IVLP's tokens in both towers, held to the frozen towers' answers for the same view, and averaged over the epochs.

Source: Khattak et al., Self-regulating Prompts: Foundational Model Adaptation without Forgetting, arXiv:2307.06948.
Deviations: the paper writes both L1 terms as sums over the dimensions; with its weights, 25 and 10, they are the means
over all numbers that the release computes. Its KL divergence is a mean over images here; the release, from which the
published numbers are, divides by the number of classes once more: ``as_released: true``. In both it is the prompted
distribution's divergence from the frozen one, and frozen class embeddings are the mean of raw ones, scaled afterwards.
Float32 instead of float16. Towers with fewer blocks than asked for get tokens in all of them. Of an epoch that training
ends in, the end counts. Settings of the paper: few-shot 50 epochs, ``mean`` and ``deviation`` 30 and 30, or 45 and 5 on
Stanford Cars, Flowers102, FGVC Aircraft, DTD and EuroSAT; cross-dataset 20 epochs, both depths 3, and 6 and 10.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F

from adaptkit import hookimpl, unit
from adaptkit.io.ranges import Positive, Weight
from adaptkit.io.text import template
from adaptkit.methods.ops import as_queries
from adaptkit.methods.tower_prompts import IndependentPrompts

# Radford et al.'s for ImageNet, the sixty of them that the authors average
TEMPLATES = """a photo of a {}; a bad photo of a {}; a photo of many {}; a sculpture of a {}; a photo of the hard to see
{}; a low resolution photo of the {}; a rendering of a {}; graffiti of a {}; a bad photo of the {}; a cropped photo of
the {}; a tattoo of a {}; the embroidered {}; a photo of a hard to see {}; a bright photo of a {}; a photo of a clean
{}; a photo of a dirty {}; a dark photo of the {}; a drawing of a {}; a photo of my {}; the plastic {}; a photo of the
cool {}; a close-up photo of a {}; a black and white photo of the {}; a painting of the {}; a painting of a {}; a
pixelated photo of the {}; a sculpture of the {}; a bright photo of the {}; a cropped photo of a {}; a plastic {}; a
photo of the dirty {}; a jpeg corrupted photo of a {}; a blurry photo of the {}; a photo of the {}; a good photo of the
{}; a rendering of the {}; a {} in a video game; a photo of one {}; a doodle of a {}; a close-up photo of the {}; the
origami {}; the {} in a video game; a sketch of a {}; a doodle of the {}; a origami {}; a low resolution photo of a {};
the toy {}; a rendition of the {}; a photo of the clean {}; a photo of a large {}; a rendition of a {}; a photo of a
nice {}; a photo of a weird {}; a blurry photo of a {}; a cartoon {}; art of a {}; a sketch of the {}; a embroidered {};
a pixelated photo of a {}; itap of the {}"""
SIXTY = tuple(f"{' '.join(words.split())}." for words in TEMPLATES.split(";"))


class PromptSRC(IndependentPrompts):
    """Trained tokens in both towers, held to the frozen ones, averaged over epochs."""

    exempt: ClassVar = {
        "beats_chance": "the toy's text tower knows one sentence for a class; the others' mean is noise"
    }

    text_weight: Weight = 25.0  # lambda_2, of the L1 distance to the frozen class embeddings
    image_weight: Weight = 10.0  # lambda_1, of that to the frozen image embeddings
    logit_weight: Weight = 1.0  # of the divergence from the frozen towers' distribution
    templates: tuple[str, ...] = ()  # of the frozen class embeddings; without, sixty of CLIP's for ImageNet
    average: bool = True  # answer with tokens averaged over the epochs, not with the last
    mean: Weight = 15.0  # the epoch that counts most in the average, from 1
    deviation: Positive = 1.0  # epochs from it at which one counts for 0.61 of that
    as_released: bool = False

    def fit(self, task):
        super().fit(task)
        given = [template(one, "prompt-src.templates") for one in self.templates] or SIXTY
        names = [name.replace("_", " ") for name in task.classnames]
        raw = task.encode([one.replace("{}", name) for name in names for one in given]).to(task.support.device)
        self.register_buffer("frozen", unit(raw.view(len(names), len(given), -1).mean(1)), persistent=False)  # (C, D)
        self.averaged, self.counted = None, 0.0  # the average so far, and the weight of its epochs

    def loss(self, batch):
        return sum(self.parts(as_queries(batch, self.needs()).pixels, batch.targets))

    def parts(self, pixels, targets):
        """Cross-entropy, both L1 terms and the divergence, each times its weight."""
        x, text = unit(self.prompted(pixels)), unit(self.class_embeddings())
        logits = self.backbone.logits(x, text)
        with torch.no_grad():
            frozen = unit(self.backbone.encode_image(pixels))  # of the same view
            told = self.backbone.logits(frozen, self.frozen)
        divergence = F.kl_div(logits.log_softmax(1), told.log_softmax(1), reduction="batchmean", log_target=True)
        yield self.evaluation.loss(logits, targets)
        yield self.text_weight * F.l1_loss(text, self.frozen)
        yield self.image_weight * F.l1_loss(x, frozen)
        yield self.logit_weight * divergence / (logits.shape[1] if self.as_released else 1)

    def callbacks(self):
        from pytorch_lightning.callbacks import LambdaCallback

        def add(trainer, _):
            self.add(trainer.current_epoch + 1)

        return [LambdaCallback(on_train_epoch_end=add, on_train_end=lambda *_: self.finish())]

    def weight(self, epoch):
        """How much the tokens of an epoch, from 1, count, but for a factor that all have."""
        return math.exp(-(((epoch - self.mean) / self.deviation) ** 2) / 2)

    @torch.no_grad()
    def add(self, epoch):
        """Take the tokens as they are after an epoch into the average."""
        weight = self.weight(epoch)
        self.counted += weight
        share = weight / self.counted if self.counted else 1.0  # of epochs that count for nothing, the last
        now = [p.clone() for p in self.parameters()]
        self.averaged = [torch.lerp(a, p, share) for a, p in zip(self.averaged or now, now, strict=True)]

    @torch.no_grad()
    def finish(self):
        """Answer with the average from now on, and keep nothing else of training."""
        if self.average and self.averaged:  # which it is not where training has no epoch
            for p, averaged in zip(self.parameters(), self.averaged, strict=True):
                p.copy_(averaged)
        self.averaged = self.frozen = None


@hookimpl
def methods():
    return {"prompt-src": PromptSRC}
