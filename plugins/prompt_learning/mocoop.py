"""A prompt for each group of templates, of which a router takes the two that suit an image.

Source: Du et al., Mixture of Prompt Learning for Vision Language Models, arXiv:2409.12011.
Deviations: weights of the losses, schedule, the router's target and the loss on texts without a factor are the
release's; the paper could not be checked. ``as_released`` counts a template's words by spaces, which learns other
tokens where a word has several or ends it, and ends prompts by full stops in the loss on texts. The release trains the
image tower's norms, too, has templates for each dataset, and in base-to-new knows the new names: ``others``. Ten cached
views stand for fresh ones. Float32 instead of half precision.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Method, Pooled, Prompts, Schedule, hookimpl, unit
from adaptkit.io.ranges import Size, Views, Weight
from adaptkit.io.text import template
from adaptkit.methods.ops import as_queries
from adaptkit.methods.schedule import DASSL

GROUPS = (
    ("a photo of a {}.",),
    ("a low resolution photo of a {}.", "a pixelated photo of a {}."),
    ("a good photo of a {}.", "a good photo of the {}."),
)


class MoCoOp(Method):
    """Trained prompts, one for each group of templates, mixed by a trained router."""

    groups: tuple[tuple[str, ...], ...] = GROUPS  # templates; a prompt starts from the first of its group
    top: Size = 2  # prompts that an image is answered by, K
    text_weight: Weight = 5.0  # of the loss that holds prompts to their groups' templates
    gate_weight: Weight = 1.0  # of the loss that leads the router
    others: tuple[str, ...] = ()  # names of classes without images that the loss on texts covers, too
    views: Views = 10  # cached random views of each support image; one is drawn at every step
    as_released: bool = False  # count words by spaces, and hold prompts with a full stop to their templates
    schedule: Schedule = replace(DASSL, lr=0.032, warmup=5)
    tunable = ("before", "after")

    def support_needs(self):
        return {"views": Pooled(views=self.views, augment="wide-crop-flip")}

    def fit(self, task):
        self.backbone, dim = task.backbone, task.backbone.dim
        names = [*task.classnames, *(name for name in dict.fromkeys(self.others) if name not in task.classnames)]
        if not self.groups or not all(self.groups):
            raise ValueError(f"mocoop.groups must each have a template, and be one at least; got {self.groups}")
        plain = [template(text, "mocoop.groups").replace(".", "") for group in self.groups for text in group]
        hard = unit(task.encode([f"{t}.".replace("{}", n.replace("_", " ")) for t in plain for n in names]))
        means = [part.mean(0) for part in hard.unflatten(0, (-1, len(names))).split([*map(len, self.groups)])]
        self.register_buffer("prototypes", unit(torch.stack(means)), persistent=False)  # (G, C, D)
        self.experts = self.made(task.classnames)
        self.held = self.made(names, "." * self.as_released) if self.others or self.as_released else self.experts
        starts = [self.start(group[0], expert) for group, expert in zip(self.groups, self.experts, strict=True)]
        self.before, self.after = (nn.ParameterList(part) for part in zip(*starts, strict=True))  # each (n, W)
        self.correction, self.gate = nn.Parameter(torch.zeros(1, dim)), nn.Linear(dim, len(self.groups))

    def retarget(self, task):
        self.experts, self.held, self.prototypes = self.made(task.classnames), None, None

    def made(self, names, stop=""):
        """Each group's first template around some names, with the places of what is learned."""
        texts = [group[0].replace(".", "") for group in self.groups]
        made = [Prompts(self.backbone, names, n=10_000, init=text, suffix=stop) for text in texts]
        for expert, text in zip(made, texts, strict=True) if self.as_released else ():
            ends = Prompts(self.backbone, names, n=1, init="{} X", suffix="").places  # of names alone
            word = torch.arange(sum(spaces(text)))
            expert.n, expert.places = len(word), word + torch.where(word < spaces(text)[0], self.backbone.prefix, ends)
        return made

    def start(self, text, expert):
        """Embeddings of a template's words before and behind the name."""
        if self.as_released:
            rows = [self.backbone.words(self.backbone.tokenize([part]))[0] for part in sides(text)]
            return [row[self.backbone.prefix :][:n].clone() for row, n in zip(rows, spaces(text), strict=True)]
        before = (expert.places[0] == self.backbone.prefix + torch.arange(expert.n)).sum()
        return [part.clone() for part in expert.words().tensor_split([int(before)])]

    def texts(self, experts):
        """Unit-norm class embeddings under each prompt, ``(G, C, D)``."""
        parts = zip(experts, self.before, self.after, strict=True)
        return unit(torch.stack([expert.encode(torch.cat(words)) for expert, *words in parts]) + self.correction)

    def answers_by(self, x, text):
        """Logits ``(B, C)``, and the router's scores ``(B, G)``."""
        scores = self.gate(x)
        best, chosen = scores.topk(min(self.top, len(self.groups)))
        weights = torch.zeros_like(scores).scatter(1, chosen, best.softmax(-1))[..., None]  # (B, G, 1)
        mixed = (weights * torch.einsum("bd,gcd->bgc", x, text)).sum(1)  # of embeddings that are not normalised again
        return self.backbone.logit_scale * mixed + self.backbone.logit_bias, scores

    def forward(self, batch):
        return self.answers_by(batch.x, self.texts(self.experts))[0]

    def loss(self, batch):
        x, y, text = as_queries(batch, self.needs()).x, batch.labels, self.texts(self.experts)
        logits, scores = self.answers_by(x, text)
        held = text if self.held is self.experts else self.texts(self.held)
        own = torch.arange(held.shape[1], device=x.device).repeat(len(held))
        suits = torch.einsum("bd,gbd->bg", x, self.prototypes[:, y])
        suits = suits.scatter_add(1, suits.topk(min(self.top, len(text))).indices, torch.full_like(suits, 10.0))
        texts = F.cross_entropy((held @ self.prototypes.mT).flatten(0, 1), own)  # (G * C, C)
        gate = F.cross_entropy(scores, suits.softmax(-1))
        return F.cross_entropy(logits, y) + self.text_weight * texts + self.gate_weight * gate


def sides(text):  # a template before and behind the name, without full stops
    return text.replace(".", "").replace(" {}", "{}").split("{}")


def spaces(text):  # words before and behind the name, as the release counts them
    return [len(part.split(" ")) if part else 0 for part in sides(text)]


@hookimpl
def methods():
    return {"mocoop": MoCoOp}
