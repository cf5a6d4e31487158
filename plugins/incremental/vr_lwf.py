"""VR-LwF: both towers are tuned on task after task, and held to what they said of a vocabulary that is replayed.

At every step the towers, as they were before this task, tell how alike an image is to sentences of random words; the
towers that learn must say the same. So nothing of earlier tasks is kept, neither images nor classes.

Source: Ding et al., Don't Stop Learning: Towards Continual Learning for the CLIP Model, arXiv:2207.09248.
Deviations: the paper has no public code and was not at hand; this was written from its abstract and summaries. The sum
of a cross-entropy and a divergence between similarities to a random vocabulary is the paper's; how long a random
sentence is, how many are drawn, the weight and the schedule are our reading and could not be checked. The one version
to be had is that which ZSCL (arXiv:2303.06628) compares with. It draws 1,000 sentences of 10 tokens once a task, at
``temperature: 2``, compares images with what the earlier text tower made of them, multiplies the divergence by 4, and
adds that over a batch's images for each sentence. Only a task's own classes compete while it is learned, there too.
Interactions: with ``distil: 0`` it is plain fine-tuning, task after task. The towers as they were before a task are
kept in memory beside those that learn.
"""

import torch
import torch.nn.functional as F

from adaptkit import Prompts, Schedule, hookimpl, unit
from adaptkit.io.ranges import Positive, Size, Weight
from adaptkit.methods.sessions import Sessions
from adaptkit.methods.tuned_weights import TowerTuner


class VRLwF(Sessions, TowerTuner):
    """Both towers, held to their similarities to random sentences, task after task."""

    words: Size = 100  # random sentences of a step
    length: Size = 4  # tokens of each, drawn from all that the text tower knows
    distil: Weight = 1.0  # of the divergence
    temperature: Positive = 1.0  # of the similarities that are compared
    schedule: Schedule = Schedule(epochs=10, lr=1e-5, batch_size=32, weight_decay=0.01)

    def fit(self, task):
        super().fit(task)
        self.vocabulary = Prompts(task.backbone, [""] * self.words, n=self.length)
        self.earlier = {}  # weights before this task, by name; the frozen ones in the first
        self.begin(task)

    def extend(self, task):
        super().extend(task)
        self.earlier = {n: p.detach().clone() for n, p in zip(self.tuned.names, self.tuned.values, strict=True)}

    def loss(self, batch):
        pixels = batch.views[:, 0]
        x = self.images(pixels)
        loss = self.among_new(self.backbone.logits(x, self.text()), batch.labels)
        return loss + self.distil * self.drift(x, pixels, self.draw()) if self.distil else loss

    def draw(self):
        """Random tokens as the text tower embeds them, ``(P, n, W)``."""
        known = self.backbone.weight("text.tokens")  # (vocabulary, W)
        return known[torch.randint(len(known), (self.words, self.length)).to(known.device)]

    def drift(self, x, pixels, words):
        """Divergence of similarities to random sentences from those before this task, nats, mean over images."""
        with self.tuned.placed("text"):
            after = self.backbone.logits(x, unit(self.vocabulary.encode(words)))  # (B, P)
        with torch.no_grad(), self.backbone.weights(self.earlier):
            old = unit(self.backbone.encode_image(pixels)), unit(self.vocabulary.encode(words))
            before = self.backbone.logits(*old)
        pair = [(logits / self.temperature).log_softmax(1) for logits in (after, before)]
        return F.kl_div(*pair, log_target=True, reduction="batchmean")


@hookimpl
def methods():
    return {"vr-lwf": VRLwF}
