"""Labels propagated from class embeddings to images, without the texts' common part; they tune both towers' norms.

Source: Hu et al., ReCLIP: Refine Contrastive Language Image Pre-Training with Source Free Domain Adaptation,
arXiv:2308.03793.
Deviations: float32; the answer is that after the last epoch, where the release takes the best epoch by the test labels.
Towers are tuned on the queries, for each set of them anew. The loss of the image tower is a mean over images with equal
labels; the release divides it by the batch's size as well: ``as_released=True``. The solver stops after 20 steps of
conjugate gradients, far from convergence, so their number is part of the method. For more than 500 classes the release
says ``dims: 250``. With ``tune: false`` the answers are the scores of propagation, which are not calibrated.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pixels, Pooled, Schedule, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Share, Size, Steps, Weight
from adaptkit.methods.graph import affinities, spread_labels
from adaptkit.methods.on_queries import embedded_now, train_in_rounds, tunable, tuned_on
from adaptkit.methods.ops import class_sums
from adaptkit.methods.tuned_weights import TunedWeights, norm_weights


class ReCLIP(ZeroShot):
    """Propagates labels to all queries, and tunes both towers' norms by them."""

    scope, towers = "set", True  # until a task has none

    k: Size = 20  # neighbours of a node, among classes and images alike
    alpha: Share = 0.99  # how far labels travel
    dims: Size = 768  # singular vectors of the class embeddings, at most, the first of which is left out
    steps: Steps = 20  # of conjugate gradients
    tolerance: Weight = 1e-6  # residual, beside the right-hand side, at which a class takes no further step
    tune: bool = True  # both towers; without, and of features alone, labels are propagated once
    as_released: bool = False  # with the slip above
    schedule: Schedule = Schedule(  # no epochs: one for every 5000 images and two more, at most 100
        epochs=0, lr=1e-3, batch_size=64, optimizer="sgd", weight_decay=1e-4, decay="constant"
    )

    def needs(self):
        return {"pixels": Pixels()} if self.tune and self.towers else {"x": Pooled()}

    def fit(self, task):
        super().fit(task)
        self.projection = nn.Buffer(self.projection_of(self.text))
        self.towers = not self.tune or tunable(self.backbone)
        if self.tune and self.towers:
            self.tokens = self.backbone.tokenize([s for own in task.prompts for s in own])
            self.counts = [len(own) for own in task.prompts]

    def projection_of(self, text):
        """Onto the span of class embeddings, their common part left out, ``(D, D)``."""
        u = torch.linalg.svd(text.T, full_matrices=False).U  # (D, min(C, D))
        return u[:, 1 : self.dims] @ u[:, 1 : self.dims].T

    def forward(self, batch):
        if self.tune and self.towers:
            return tuned_on(batch, self.tuned)
        return self.scores(self.text, batch.x, self.projection)[len(self.text) :]

    def scores(self, text, x, projection):
        """Propagated from classes, ``(C, D)``, to themselves and images, ``(C + N, C)``."""
        graph = affinities(unit(torch.cat([text, x]) @ projection), self.k)
        return spread_labels(graph, len(text), self.alpha, self.steps, self.tolerance)

    def tuned(self, images):
        """The mean of both towers' logits of N images, once each is tuned on labels that their spaces agree on."""
        names = norm_weights(self.backbone)
        eye, voice = (TunedWeights(self.backbone, [n for n in names if n.startswith(t)]) for t in ("image.", "text."))
        x, centroids = embedded_now(images, self.backbone.encode_image), self.text

        def begin():
            nonlocal centroids
            with torch.no_grad():
                seen, text = embedded_now(images, eye.encode_image), self.spoken(voice)  # the last round's are stale
                own = self.scores(self.text, seen, self.projection).argmax(1)  # (C + N,)
                agreed = own == self.scores(text, x, self.projection_of(text)).argmax(1)
                centroids = self.centroids(seen, own)
            labels, agreed = own[len(text) :], agreed[len(text) :].cpu()

            def loss(rows):
                if not len(part := rows[agreed[rows]]):
                    return None
                here = self.backbone.logits(unit(eye.encode_image(images[part].pixels)), centroids)
                there = self.backbone.logits(x[part], self.spoken(voice, short=True))
                slip = len(rows) if self.as_released else 1
                return F.cross_entropy(here, labels[part]) / slip + F.cross_entropy(there, labels[part])

            return torch.arange(len(images)), loss

        rounds = self.schedule.passes(1) or min(100, len(images) // 5000 + 2)
        train_in_rounds(begin, [*eye.parameters(), *voice.parameters()], self.schedule, rounds)
        here = self.backbone.logits(embedded_now(images, eye.encode_image), centroids)
        return (here + self.backbone.logits(x, self.spoken(voice, short=True))) / 2

    def spoken(self, voice, short=False):
        """Class embeddings by a tuned text tower, ``(C, D)``, of all sentences or, `short`, of each class's first."""
        counts = torch.tensor(self.counts)
        rows = counts.cumsum(0) - counts if short else torch.arange(len(self.tokens["input_ids"]))
        texts = unit(voice.encode_text({name: value[rows] for name, value in self.tokens.items()}))
        return texts if short else unit(torch.stack([own.mean(0) for own in texts.split(self.counts)]))

    def confidence(self, scores):
        """How sure each image's scores are, ``(N, C)`` to ``(N,)``: 1 less their entropy over that of guessing."""
        p = scores.clamp_min(0)
        p = p / p.sum(1, keepdim=True)
        return 1 + torch.xlogy(p, p).sum(1) / math.log(scores.shape[1])

    def centroids(self, x, labels):
        """Class embeddings for the next round, ``(C, D)``: unit-norm means over the texts and images of each label."""
        classes = len(self.text)
        sums, counts = class_sums(torch.cat([self.text, x]), labels, classes), labels.bincount(minlength=classes)
        return unit(torch.where(counts[:, None] > 0, sums, self.text))


@hookimpl
def methods():
    return {"re-clip": ReCLIP}
