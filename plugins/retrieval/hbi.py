"""Text to video by words and frames, and by groups of them: what a pair adds beyond its members shapes their likeness.

Each token meets its likest one, weighed, in both directions. How much a word and a frame add together beyond what each
adds alone, over coalitions of the others (Banzhaf's interaction), is what a small network learns to tell, and the
similarities of tokens are drawn to it. Tokens are merged into groups, and these into larger ones.

Source: Jin et al., Video-Text as Game Players: Hierarchical Banzhaf Interaction, arXiv:2303.14369.
Deviations: the towers stay frozen. The interaction is Banzhaf's, where both players join the coalition with all that
they are like in it, and padding is never the likest; the release lets both add their own similarity alone, mixes
weights before and after a softmax, and has padding count as 0: ``as_released=True``. The network that tells
interactions learns beside the rest, from the first `told` pairs of a batch and from cosines, not before it. Groups are
density peaks, merged by weights; no transformer runs over them. Levels count equally, in scores and in the loss, and
all softmaxes have the backbone's scale. Weights start equal. Pairs of one label in a batch match each other.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Schedule, SentenceTokens, SequenceRetriever, hookimpl, unit
from adaptkit.io.ranges import Share, Size, Weight
from adaptkit.methods.coalitions import InteractionPredictor, met, sampled_interactions, shares, token_worth
from adaptkit.methods.merging import merged_tokens
from adaptkit.methods.retriever import finding_both_ways, matching


class HBI(SequenceRetriever):
    """Words and frames as players, at several levels."""

    words_read: Size = 32  # tokens of a text, at most
    levels: Size = 3
    groups: Share = 0.5  # of the tokens of the level below
    near: Size = 3  # neighbours that tell how dense it is around a token
    planes: Size = 6  # of the network that tells interactions
    told: Size = 8
    coalitions: Size = 4  # sampled for each word and frame
    alpha: Weight = 1.0  # of the interactions in the loss
    beta: Weight = 1.0  # of larger groups answering as words and frames do
    as_released: bool = False
    schedule: Schedule = Schedule(epochs=5, lr=1e-4, batch_size=128, optimizer="adamw")

    def needs(self):
        return {**super().needs(), "words": SentenceTokens(count=self.words_read, of="text")}

    def build(self, task):
        width = task.backbone.dim
        heads = [nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)) for _ in range(2 * self.levels)]
        for head in heads:
            nn.init.zeros_(head[2].weight)
        self.of_words, self.of_frames = nn.ModuleList(heads[: self.levels]), nn.ModuleList(heads[self.levels :])
        self.predictor = InteractionPredictor(self.planes)

    def grouped(self, tokens, heads):
        """For each level the tokens, which are there, and their weights; of ``(B, T, D)``, zeros behind the last."""
        there, found = tokens.any(-1), []
        for head in heads:
            if found:
                count = math.ceil(self.groups * tokens.shape[1]) or 1
                tokens, there = merged_tokens(tokens, there, found[-1][2], count, self.near)
            tokens = unit(tokens)
            found.append((tokens, there, head(tokens)[..., 0]))
        return found

    def compared(self, asked, items):
        """For each level similarities, presence and weights of tokens, and what pairs are worth, ``(N, G)``."""
        texts, videos = self.grouped(asked.words, self.of_words), self.grouped(items.frames, self.of_frames)
        for (words, said, a), (frames, shown, b) in zip(texts, videos, strict=True):
            like = torch.einsum("nld,gfd->nglf", words, frames)
            there = met(said[:, None], shown)
            worth = token_worth(like, there, shares(a, said)[:, None], shares(b, shown), self.as_released)
            yield like, (said, shown), (a, b), worth

    def scores(self, asked, items):
        return torch.stack([worth for *_, worth in self.compared(asked, items)]).mean(0)

    def loss(self, batch):
        own, total, taught = matching(batch), 0.0, None
        for like, there, weights, worth in self.compared(batch, batch):
            found = self.backbone.logit_scale * worth
            total = total + finding_both_ways(found, own)
            total = total + self.alpha * self.interacting(like.diagonal().permute(2, 0, 1), there, weights)
            if taught is not None:
                total = total + self.beta * (drawn(found, taught) + drawn(found.T, taught.T)) / 2
            taught = found.detach() if taught is None else taught
        return total / self.levels

    def interacting(self, like, there, weights):
        """How far similarities of matching pairs, ``(B, n, m)``, are from interactions, and these from sampled ones."""
        told, (b, n, m) = like[: self.told].detach(), like[: self.told].shape
        draws = [torch.rand(n, m, self.coalitions, b, k).to(like) for k in (n, m)]
        present, weighed = ([x[:b] for x in both] for both in (there, [w.detach() for w in weights]))
        sampled = sampled_interactions(told, present, weighed, draws, self.as_released)
        learned = F.mse_loss(self.predictor(told) * met(*present), sampled)
        both = met(*there)
        aim, now = (self.backbone.logit_scale * x for x in (self.predictor(like.detach()).detach(), like))
        aim, now = (x.masked_fill(~both, torch.finfo(x.dtype).min) for x in (aim, now))
        return learned + (drawn(now[there[0]], aim[there[0]]) + drawn(now.mT[there[1]], aim.mT[there[1]])) / 2


def drawn(logits, aim):
    """The mean divergence of rows of logits from those that they are drawn to."""
    return F.kl_div(logits.log_softmax(-1), aim.log_softmax(-1), log_target=True, reduction="batchmean")


@hookimpl
def methods():
    return {"hbi": HBI}
