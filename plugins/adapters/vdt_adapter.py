"""CLIP-A-self: generated sentences of a class attend to each other, and their mean is its embedding.

Source: Maniparambil et al., Enhancing CLIP with GPT-4: Harnessing Visual Descriptions as Prompts, arXiv:2307.11661.
Deviations: each step sees one of the stored views of an image; ``fresh: true`` draws it anew, as the authors do, at the
price of the image tower's pass. Classes may have different numbers of sentences.
Interactions: without a `file` the task's own sentences attend to each other, which with one sentence a class is a
learned linear map of it.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Pooled, Schedule, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Share, Size, Views
from adaptkit.methods.schedule import DASSL
from adaptkit.runs.plugins import pick
from adaptkit.towers.once import Once


class VDTAdapter(ZeroShot):
    """Trained attention among a class's sentences, whose mean becomes its embedding."""

    file: str = ""  # sentences by class, as the prompts `llm` read them; without, the task's are used
    ratio: Share = 0.2  # share of the attention's output in the blend
    reduction: Size = 4  # width of the embedding over that of the head
    dropout: Share = 0.5  # of the output
    attention_dropout: Share = 0.1
    views: Views = 10  # random views per support image, to train on
    fresh: bool = False  # draw views anew instead
    augment: str = "wide-crop-flip"
    schedule: Schedule = replace(DASSL, epochs=10, batch_size=1)

    def support_needs(self):
        return {"views": Pooled(views=1 if self.fresh else self.views, augment=self.augment, fresh=self.fresh)}

    def retarget(self, task):
        super().fit(task)
        sentences = pick("prompts", "llm")(task.classnames, None, file=self.file) if self.file else task.prompts
        rows = task.encode([s for own in sentences for s in own]).to(self.text)
        rows = rows.split([len(own) for own in sentences])
        self.rows = nn.Buffer(nn.utils.rnn.pad_sequence(list(rows), batch_first=True))  # (C, M, D)
        counts = torch.tensor([len(own) for own in sentences])
        self.held = nn.Buffer((torch.arange(self.rows.shape[1]) < counts[:, None]).to(self.text.device))  # (C, M)
        self.once = Once()

    def fit(self, task):
        self.retarget(task)
        width = self.text.shape[1]
        head = max(1, width // self.reduction)
        self.q, self.k, self.v = (nn.Linear(width, head, bias=False) for _ in range(3))
        self.out, self.norm = nn.Linear(head, width), nn.LayerNorm(width)
        for part, gain in ((self.q, 1.0), (self.k, 1.0), (self.v, 0.67), (self.out, 0.67)):
            nn.init.xavier_normal_(part.weight, gain=gain)

    def forward(self, batch):
        text = self.attend() if self.training else self.once(self.attend, *self.parameters())  # dropout draws anew
        return self.backbone.logits(batch.x, text)

    def attend(self):
        """Class embeddings, ``(C, D)``."""
        q, k, v = self.q(self.rows), self.k(self.rows), self.v(self.rows)
        scores = (q @ k.transpose(1, 2)) / q.shape[-1] ** 0.5
        attention = scores.masked_fill(~self.held[:, None], -torch.inf).softmax(-1)  # (C, M, M)
        mixed = self.out(F.dropout(attention, self.attention_dropout, self.training) @ v)
        mixed = F.dropout(mixed, self.dropout, self.training)
        rows = self.norm(2 * (self.ratio * mixed + (1 - self.ratio) * self.rows))
        return unit((rows * self.held[..., None]).sum(1))  # the mean's direction


@hookimpl
def methods():
    return {"vdt-adapter": VDTAdapter}
