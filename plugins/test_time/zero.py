"""Votes of an image's most confident views: zero-shot with the temperature set to zero after filtering.

Source: Farina et al., Frustratingly Easy Test-Time Adaptation of Vision-Language Models, arXiv:2405.18330.
Deviations: a tie that no further view breaks goes, in the released code, to the first such view's best class with those
at mirrored positions barred, not those outside the tie; ``as_released=True`` reproduces the slip. The release's entropy
is not a number once a probability underflows, and that view comes last; ours stays finite. We always keep one view.
"""

import torch
import torch.nn.functional as F

from adaptkit import Pooled, ZeroShot, hookimpl
from adaptkit.io.ranges import Share, Views
from adaptkit.methods.ops import entropy, in_parts


class Zero(ZeroShot):
    """Each of an image's most confident views votes for one class.

    Counts of votes, with one more for the winner of a tie.
    """

    gamma: Share = 0.3  # share of the views that vote, the most confident
    views: Views = 64  # the plain image among them
    augment: str = "wide-crop-flip"
    judge: str = ""  # another backbone, which votes; the task's own then only filters and breaks ties
    as_released: bool = False

    def needs(self):
        views = {"views": self.views, "plain_first": True, "augment": self.augment}
        return {"views": Pooled(**views)} | ({"judged": Pooled(**views, backbone=self.judge)} if self.judge else {})

    def fit(self, task):
        super().fit(task)
        if self.judge:
            self.register_buffer("judge_text", task.text_by(self.judge))  # (C, D')

    def forward(self, batch):
        judged = [batch.judged] if self.judge else []
        votes, rest, after = in_parts(self.count, batch.views, *judged)
        tied = votes == votes.amax(1, keepdim=True)  # (B, C)
        winner, _ = self.tie_break(tied, rest, after)
        return votes + F.one_hot(winner, votes.shape[1]) * (tied.sum(1, keepdim=True) > 1)

    def count(self, views, judged=None):
        """Votes ``(B, C)``; what the other views would say, surest first, ``(B, R)``; logits of the first of them."""
        logits = self.zero_shot(views)  # (B, V, C)
        order = entropy(logits).argsort(dim=1, stable=True)  # (B, V)
        kept = max(1, int(self.gamma * order.shape[1]))
        said = logits.argmax(-1)
        votes = said if judged is None else (judged @ self.judge_text.T).argmax(-1)
        votes = votes.gather(1, order[:, :kept])
        after = logits[torch.arange(len(order)), order[:, kept % order.shape[1]]]  # (B, C)
        count = torch.zeros_like(after).scatter_add_(1, votes, torch.ones_like(votes, dtype=after.dtype))
        return count, said.gather(1, order[:, kept:]), after

    def tie_break(self, tied, rest, after):
        """The tied class that the next views name first, ``(B,)``, and where none does and `after` had to choose."""
        barred = tied.flip(1) if self.as_released else ~tied
        said = torch.cat([rest, after.masked_fill(barred, -torch.inf).argmax(1, keepdim=True)], 1)  # (B, R + 1)
        hits = tied.gather(1, said)
        hits[:, -1] = True
        first = hits.int().argmax(1, keepdim=True)
        return said.gather(1, first)[:, 0], first[:, 0] == rest.shape[1]


@hookimpl
def methods():
    return {"zero": Zero}
