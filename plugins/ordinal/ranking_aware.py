"""Images in the order that a sentence asks for: a grade from patches that read the sentence, and from pairs of images.

Patches attend to the words, and then to each other; their sum is the grade. In training, learned queries look at two
images; what they see in the first, less what they see in the second, tells whose grade is higher.

Source: Yu et al., Ranking-aware adapter for text-driven image ordering with CLIP, arXiv:2412.06760.
Deviations: a regression and a pairwise loss, as the paper says; pairs of one grade have no order and are left out. The
release also asks whether a grade is not 0, and takes an image beside itself, or beside another of its grade, for one in
wrong order: ``as_released=True``. One sentence for all images, without padding; no dropout. Of the paper no more than
the summary was at hand: depth, rate and length are ours.
"""

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Dense, Method, Schedule, hookimpl
from adaptkit.features.needs import SentenceTokens
from adaptkit.io.ranges import Size, Weight
from adaptkit.methods.blocks import TokenBlock, fitting_heads


class RankingAware(Method):
    """A grade of each image, a real number, by a head on patches and words."""

    answers = ("ordinal",)
    output = "score"

    sentence: str = "the grade of the image."  # by what images are ordered, e.g. "the number of dogs in the photo."
    heads: Size = 8  # of every attention, or the next smaller number that divides the width
    layers: Size = 1  # in which patches attend to each other and to the words
    layers_after: Size = 1  # in which they attend to each other
    queries: Size = 3  # that look at pairs
    regression: Weight = 0.2  # of the grade's loss
    as_released: bool = False
    schedule: Schedule = Schedule(epochs=50, lr=3e-3, batch_size=64, weight_decay=0.01)

    def needs(self):
        return {"patches": Dense(attention="own", unit=False)}

    def fit(self, task):
        task.require_support(type(self).__name__)
        with torch.no_grad():
            words = SentenceTokens(count=512).compute(task.backbone, task.backbone.tokenize([self.sentence]))[0]
        self.register_buffer("words", words[words.any(-1)].to(task.support.device))  # (L, D)
        self.build(task.backbone.dim)

    def build(self, width):
        """Make what is learned."""
        heads = fitting_heads(width, self.heads)
        how = {"heads": heads, "hidden": 4 * width, "activation": "gelu"}
        after = {"heads": heads, "hidden": width, "activation": "relu", "norm_first": False}
        self.own = nn.ModuleList(TokenBlock(width, **how) for _ in range(self.layers))
        self.over = nn.ModuleList(OverWords(width, **how) for _ in range(self.layers))
        self.after = nn.ModuleList(TokenBlock(width, **after) for _ in range(self.layers_after))
        self.norm, self.norm_sum, self.norm_pair, self.norm_q, self.norm_kv = (nn.LayerNorm(width) for _ in range(5))
        self.q, self.kv, self.out = (nn.Linear(width, width) for _ in range(3))
        self.project = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.asked = nn.Parameter(torch.randn(self.queries, width) / width**0.5)
        self.grade, self.pair = perceptron(width, 2), perceptron(width, 3)

    def forward(self, batch):
        return self.scored(self.read(batch.patches))

    def read(self, patches):
        """Patches that have read the words, ``(B, P, D)``."""
        for own, over in zip(self.own, self.over, strict=True):
            patches = over(own(patches), self.words.expand(len(patches), -1, -1))
        return nn.Sequential(*self.after)(self.norm(patches) @ self.project)

    def scored(self, patches):
        """The grade of each image, ``(B,)``."""
        return self.grade(self.norm_sum(patches).sum(1))[:, 0]

    def differences(self, patches):
        """What each query sees more of in the first image of a pair, by one softmax over both, ``(B, B, Q, D)``."""
        heads = self.own[0].attention.num_heads
        q = self.norm_q(self.q(self.asked)).unflatten(-1, (heads, -1))  # (Q, H, D / H)
        kv = self.norm_kv(self.kv(patches)).unflatten(-1, (heads, -1))  # (B, P, H, D / H)
        scores = torch.einsum("qhd,bphd->bqhp", q, kv) / q.shape[-1] ** 0.5
        seen, mass = torch.einsum("bqhp,bphd->bqhd", scores.softmax(-1), kv), scores.logsumexp(-1)[..., None]
        share = (mass[:, None] - mass).sigmoid()  # (B, B, Q, H, 1), of the softmax over both that is the first one's
        return self.out((share * seen[:, None] - (1 - share) * seen).flatten(-2))

    def compared(self, patches):
        """Logits of the first image of a pair having the higher grade, ``(B, B)``."""
        return self.pair(self.norm_pair(self.differences(patches).sum(2)))[..., 0]

    def loss(self, batch):
        patches = self.read(batch.patches)
        scores, order = self.scored(patches), self.compared(patches)
        true = batch.labels.to(scores)
        loss = self.regression * F.smooth_l1_loss(scores, true).log1p()
        higher, differ = (true[:, None] > true).to(order), true[:, None] != true
        ordered = F.binary_cross_entropy_with_logits(order, higher, reduction="none")  # (B, B)
        if self.as_released:
            return loss + ordered.mean() + F.binary_cross_entropy_with_logits(scores, (true != 0).to(scores))
        return loss + (ordered * differ).sum() / differ.sum().clamp_min(1)


class OverWords(TokenBlock):
    """A block whose patches attend to words in place of each other."""

    def __init__(self, width, **how):
        super().__init__(width, **how)
        self.norm_words = nn.LayerNorm(width)

    def attend(self, x, words):
        return self.attention(x, *2 * [self.norm_words(words)], need_weights=False)[0]


def perceptron(width, layers):
    """Layers with norms, and one number at the end."""
    inner = [(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU()) for _ in range(layers)]
    return nn.Sequential(*(part for layer in inner for part in layer), nn.Linear(width, 1))


@hookimpl
def methods():
    return {"ranking-aware": RankingAware}
