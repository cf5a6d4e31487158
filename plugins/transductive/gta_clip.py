"""Transduction over lists of attributes, in rounds that tune the towers on its surest images and their attributes.

Source: Saha et al., Generate, Transduct, Adapt: Iterative Transduction with VLMs, arXiv:2501.06031.
Deviations: float32; the attributes are the task's prompts and stay the same: here is no language model that writes more
for the pairs of `confusions`. Towers are tuned on the queries, for each set anew; the answer is that after the last
round, where the release takes the best by the test labels. The factor from cosine to logit is not trained. The release
leaves out what it calls proj, so all maps of attention and the second of each MLP: ``as_released=True``. As released, a
class's logit is the mean over its attributes: the mean of their embeddings, not brought back to unit norm.
"""

from dataclasses import field

import torch
from torch import nn

from adaptkit import Images, Method, OverBase, Pixels, Schedule, Task, ZeroShot, hookimpl, method, predict, unit
from adaptkit.io.ranges import Share, Size, Weight
from adaptkit.methods.adapt import retarget
from adaptkit.methods.on_queries import embedded_now, positives, train_in_rounds, tunable, tuned_on
from adaptkit.methods.tuned_weights import TunedWeights

SPARED = (".q.", ".k.", ".v.", ".out.", ".fc2.")  # by the release


class AttributeMean(ZeroShot):
    """The mean of the logits of a class's sentences."""

    def fit(self, task):
        super().fit(task)
        self.text = torch.stack([rows.mean(0) for rows in task.text_per_prompt])


class GTACLIP(OverBase):
    """A mixture over all queries, whose surest images tune both towers in rounds."""

    scope, towers = "set", True  # until a task has none

    base: Method = field(default_factory=lambda: method("trans-clip", base=AttributeMean()))  # log-probabilities
    gap: Share = 0.1  # an image is confused whose two best classes are closer than this
    fraction: Share = 0.05  # of the pairs of classes that confuse images, the share to ask about
    k: Size = 8  # examples of a class, those that it is most probable for
    tune: bool = True  # both towers; without, and of features alone, the answer is one transduction's
    projection_lr: Weight = 1e-6  # of the projections to the joint space
    as_released: bool = False  # with the omission above
    schedule: Schedule = Schedule(epochs=30, lr=2e-7, weight_decay=1e-4, eps=1e-6, decay="constant")  # epochs: rounds

    def needs(self):
        pixels = {"pixels": Pixels(), "views": Pixels(views=1, augment="jitter", fresh=True)}
        return pixels if self.tune and self.towers else {}

    def fit(self, task):
        super().fit(task)
        self.counts, self.called = [*map(len, task.prompts)], {"classnames": task.classnames, "prompts": task.prompts}
        self.attributes = nn.Buffer(torch.cat(task.text_per_prompt))  # (A, D)
        owner = torch.arange(len(self.counts)).repeat_interleave(torch.tensor(self.counts))
        self.owner = nn.Buffer(owner.to(task.text.device))  # its class, (A,)
        self.towers = not self.tune or tunable(self.backbone, self.base)
        if self.tune and self.towers:
            sentences = [s for own in task.prompts for s in own]
            self.tokens = self.backbone.tokenize(sentences)
            self.order = torch.tensor(sorted(range(len(sentences)), key=sentences.__getitem__))  # whatever the classes'

    def forward(self, batch):
        return tuned_on(batch, self.tuned) if self.tune and self.towers else predict(self.base, batch)

    def tuned(self, images):
        """The base's logits of N images, by both towers as tuned."""
        names, spared = self.backbone.weight_names(), SPARED if self.as_released else ()
        weights = TunedWeights(self.backbone, [name for name in names if not any(part in name for part in spared)])
        rates = [{"lr": self.projection_lr} if ".projection." in name else {} for name in weights.names]
        groups = [{"params": p, "betas": (0.9, 0.98), **own} for p, own in zip(weights.values, rates, strict=True)]

        def begin():
            examples = self.examples(self.transduced(images, weights).softmax(1))  # (C, k)

            def loss(rows):
                own = (examples[self.owner[self.order]][:, None] == rows.to(examples)[:, None]).any(-1)  # (A, B)
                texts = self.order[torch.multinomial(own.T.float().cpu(), 1)[:, 0]]
                x = unit(weights.encode_image(images[rows].views[:, 0]))
                t = unit(weights.encode_text({name: value[texts] for name, value in self.tokens.items()}))
                return self.contrast(examples, rows.to(examples), x, texts.to(examples), t)

            return examples.unique().cpu(), loss

        train_in_rounds(begin, groups, self.schedule, self.schedule.passes(1), anew=True)
        return self.transduced(images, weights)

    @torch.no_grad()
    def transduced(self, images, weights):
        """The base's logits of N images, ``(N, C)``, by what the towers see and read now: all before is stale."""
        x, text = embedded_now(images, weights.encode_image), unit(weights.encode_text(self.tokens)).split(self.counts)
        task = Task.from_arrays((x[:0], x.new_zeros(0).long()), text, backbone=self.backbone, **self.called).to(
            x.device
        )
        return predict(retarget(self.base, task), Images.from_arrays(x).to(x.device))

    def confusions(self, z):
        """Pairs of classes, ``(P, 2)``, ascending, and how many images each confuses, of probabilities ``(N, C)``."""
        top = z.topk(2)
        confused = top.values[:, 0] - top.values[:, 1] < self.gap
        return top.indices[confused].sort(-1).values.unique(dim=0, return_counts=True)

    def threshold(self, counts):
        """The number that a pair must confuse more images than, so that about the right share of the pairs does."""
        options = range(int(counts.max()) + 1 if len(counts) else 1)
        return min(options, key=lambda t: abs(int((counts > t).sum()) - self.fraction * len(counts)))

    def examples(self, z):
        """The most probable images of each class, ``(C, k)``, which may be examples of several."""
        return z.topk(min(self.k, len(z)), 0).indices.T

    def contrast(self, examples, images, x, attributes, text=None):
        """The loss of B images, ``(B,)`` ids and ``(B, D)``, and B attributes, ids and perhaps embeddings."""
        belong = (examples[self.owner[attributes]] == images[:, None, None]).any(-1)  # (B, B): of its class
        return positives(self.backbone.logits(x, self.attributes[attributes] if text is None else text), belong)


@hookimpl
def methods():
    return {"gta-clip": GTACLIP}
