"""How good an image is, by pairs of opposite sentences: the mean share of the good one in each pair.

Source: Agnolucci et al., Quality-Aware Image-Text Alignment for Opinion-Unaware Image Quality Assessment,
arXiv:2403.11176.
Deviations: the towers stay frozen; the paper's are trained to rank an image's degradations, by code that is not
released. The released list of sentences lacks a comma, so that two become one and the rest cannot be paired; its
checkpoint brings embeddings of its own. The sentences here are ours, and a pair is written as one, its good sentence
first. An answer is spread over the grades of the task, from 0 for the worst to the last for the best.
"""

from adaptkit import Method, hookimpl, unit
from adaptkit.io.errors import must_be

PAIRS = (
    "a good photo.|a bad photo.",
    "a sharp image.|a blurry image.",
    "a clean image.|a noisy image.",
    "a high-quality picture.|a low-quality picture.",
)


class QualiClip(Method):
    """Quality as a real number between the first and the last grade."""

    answers = ("ordinal",)
    output = "score"

    pairs: tuple[str, ...] = PAIRS  # "good|bad", sentences

    def support_needs(self):
        return {}

    def fit(self, task):
        if not self.pairs:
            raise ValueError('pairs must hold a pair, "good sentence|bad sentence"; got none')
        sentences = [pair.split("|") for pair in self.pairs]
        for pair, parts in zip(self.pairs, sentences, strict=True):
            if len(parts) != 2:
                raise ValueError(must_be("a pair", ("good sentence|bad sentence",), pair))
        self.backbone, self.last = task.backbone, max(1, len(task.classnames) - 1)
        rows = unit(task.encode([one for parts in sentences for one in parts])).to(task.support.device)
        self.register_buffer("rows", rows)  # (2 * P, D), good and bad in turn

    def forward(self, batch):
        logits = self.backbone.logits(batch.x, self.rows).unflatten(-1, (-1, 2))  # (B, P, 2)
        return self.last * logits.softmax(-1)[..., 0].mean(-1)


@hookimpl
def methods():
    return {"quali-clip": QualiClip}
