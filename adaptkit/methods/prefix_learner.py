"""What methods share that learn a prefix in one tower or in both, on whole images that they label themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit.features.items import Images
from adaptkit.features.needs import Need, Pixels, Pooled
from adaptkit.io.ranges import Size, Weight
from adaptkit.io.text import template
from adaptkit.methods.blocks import activated
from adaptkit.methods.method import Method
from adaptkit.methods.schedule import Schedule
from adaptkit.methods.task import Task
from adaptkit.towers.backbone import Backbone, unit
from adaptkit.towers.prompting import Prompts, image_prompts

Modality = Literal["text", "image", "both"]


class PrefixLearner(Method):
    """Words in front of class names, tokens in the image tower, or both, which a small transformer mixes.

    Call `start_prefixes` in `fit`; the loss is the cross-entropy of `forward` until a subclass says another.

    >>> import adaptkit as ak
    >>> from adaptkit.methods.prefix_learner import PrefixLearner
    >>> class Prefixed(PrefixLearner):
    ...     "Words in front of class names."
    ...
    ...     def fit(self, task):
    ...         self.start_prefixes(task)
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.predict(ak.adapt(Prefixed(n=4, schedule=ak.Schedule(steps=2)), task), test).shape
    torch.Size([60, 5])
    """

    modality: Modality = "text"  # the towers that get a prefix
    n: Size = 16  # words or tokens of a prefix
    std: Weight = 0.02  # of the words' random start; tokens have one over the root of their width
    template: str = ""  # a class's sentence where the text tower has no prefix; without, the first of the task's
    hidden: Size = 128  # width of the transformer that mixes prefixes of both towers
    schedule: Schedule = Schedule()

    tunable = ("context", "visual", "mixer")

    if TYPE_CHECKING:
        backbone: Backbone  # no options
        prompts: Prompts
        context: nn.Parameter
        visual: nn.Parameter
        mixer: Mixer
        fixed: Tensor

    def needs(self) -> Mapping[str, Need]:
        """Embeddings, or the image itself where its tower has a prefix."""
        return {"x": Pooled()} if self.modality == "text" else {"pixels": Pixels()}

    def start_prefixes(self, task: Task) -> None:
        """Draw the prefixes, and keep class embeddings where the text tower has none."""
        self.backbone, width = task.backbone, task.backbone.width
        if self.modality != "image":
            self.prompts = Prompts(task.backbone, task.classnames, n=self.n, suffix="")
            self.context = nn.Parameter(self.prompts.start(self.std))  # (n, W)
        if self.modality != "text":
            task.backbone.require("image.tokens")
            self.visual = nn.Parameter(width["image"] ** -0.5 * torch.randn(self.n, width["image"]))  # (n, W)
        if self.modality == "both":
            self.mixer = Mixer(width["text"], width["image"], self.hidden)
        if self.modality == "image":
            self.retarget(task)

    def retarget(self, task: Task) -> None:
        """The same prefixes for other classes."""
        if self.modality != "image":
            self.prompts = self.prompts.of(task.classnames)
            return
        given = self.template and template(self.template, "template")
        pairs = zip(task.classnames, task.prompts, strict=True)
        written = [given.replace("{}", name.replace("_", " ")) if given else own[0] for name, own in pairs]
        self.register_buffer("fixed", unit(task.encode(written)).to(task.support.device))  # (C, D)

    def prefixes(self) -> tuple[Tensor | None, Tensor | None]:
        """Words and tokens as the towers get them, ``(n, W)`` each; ``None`` where there is no prefix."""
        if self.modality == "both":
            return self.mixer(self.context, self.visual)
        return (self.context, None) if self.modality == "text" else (None, self.visual)

    def forward(self, batch: Images) -> Tensor:
        """Logits, ``(B, C)``."""
        context, visual = self.prefixes()
        text = self.fixed if context is None else unit(self.prompts.encode(context))
        if visual is None:
            return self.backbone.logits(batch.x, text)
        with self.backbone.taps(image_prompts([visual])):
            x = unit(self.backbone.encode_image(batch.pixels))
        return self.backbone.logits(x, text)


class Mixer(nn.Module):
    """A transformer of one block and one head over the words and tokens of both prefixes, with maps into it and out.

    >>> import torch
    >>> from adaptkit.methods.prefix_learner import Mixer
    >>> words, tokens = Mixer(8, 12, 4)(torch.zeros(2, 8), torch.zeros(2, 12))
    >>> words.shape, tokens.shape
    (torch.Size([2, 8]), torch.Size([2, 12]))
    """

    def __init__(self, text: int, image: int, hidden: int) -> None:
        """Draw its weights.

        Args:
            text: width of words.
            image: width of tokens.
            hidden: width of the transformer.
        """
        super().__init__()
        self.paired = False  # let a word see the token of its own number alone, as a release does
        self.enter = nn.ModuleList([nn.Linear(text, hidden), nn.Linear(image, hidden)])
        self.leave = nn.ModuleList([nn.Linear(hidden, text), nn.Linear(hidden, image)])
        self.attend, self.leave_attention = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.norms = nn.ModuleList([nn.LayerNorm(hidden), nn.LayerNorm(hidden)])
        self.grow, self.shrink = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, words: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """``(n, W)`` each, as they were: the same shapes."""
        both = [layer(prefix) for layer, prefix in zip(self.enter, (words, tokens), strict=True)]
        x = torch.stack(both, 1) if self.paired else torch.cat(both)[None]  # (n, 2, W) or (1, 2 n, W)
        q, k, v = self.attend(self.norms[0](x)).chunk(3, -1)
        x = x + self.leave_attention(F.scaled_dot_product_attention(q, k, v))
        x = x + self.shrink(activated(self.grow(self.norms[1](x)), "quick"))  # as CLIP's own blocks
        parts = x.unbind(1) if self.paired else x[0].chunk(2)
        return self.leave[0](parts[0]), self.leave[1](parts[1])
