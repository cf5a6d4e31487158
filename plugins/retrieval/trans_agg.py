"""A transformer over the tokens of text and image makes the query for what an image becomes.

Weights that are made with it mix the text's embedding, what the transformer reads out, and the image's embedding.

Source: Liu et al., Zero-Shot Composed Text-Image Retrieval, arXiv:2306.07272.
Deviations: the towers stay frozen, and triplets are those of the dataset, not made from captions. Text tokens are read
as far as the text goes, and what is read out of them is where it ends, whatever the tower's context; the release's
places are fixed to 77 tokens. The release hands the mask of padding over as numbers, so that padding scores one more in
place of nothing; ``as_released=True`` does so. The release multiplies cosines by 100, here by the backbone's own scale.
Pairs of one label in a batch match each other.
"""

import torch
from torch import nn

from adaptkit import ComposedRetriever, Dense, Schedule, SentenceTokens, hookimpl, unit
from adaptkit.io.ranges import Count, Share, Size
from adaptkit.methods.blocks import TokenBlock, fitting_heads


class TransAgg(ComposedRetriever):
    """Tokens of both towers, fused by a transformer."""

    layers: Size = 2
    heads: Size = 8
    hidden: Size = 2048  # width of the perceptrons
    inner: Count = 0  # width of the layer behind both read-outs; 0 for eight times the embedding
    dropout: Share = 0.5  # of that layer
    as_released: bool = False
    words_read: Size = 77  # tokens of a text, at most
    schedule: Schedule = Schedule(epochs=20, lr=1e-4, batch_size=256, optimizer="adamw")

    def needs(self):
        words = {"words": SentenceTokens(count=self.words_read, of="text")}
        return {**super().needs(), **words, "patches": Dense(attention="own", unit=False, of="image")}

    def build(self, task):
        width = task.backbone.dim
        inner, heads = self.inner or 8 * width, fitting_heads(width, self.heads)
        how = {"heads": heads, "hidden": self.hidden, "activation": "gelu"}
        self.between = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.ModuleList(TokenBlock(width, **how) for _ in range(self.layers))
        self.mix, self.out, self.weigh = nn.Linear(2 * width, inner), nn.Linear(inner, width), nn.Linear(width, 3)

    def query(self, asked):
        words, shown = asked.words, torch.cat([asked.reference[:, None], asked.patches], 1)
        return self.fused(asked.text, asked.reference, words, shown, words.any(-1))

    def fused(self, text, image, words, shown, there):
        """Queries, ``(N, D)``.

        Args:
            text: embeddings, ``(N, D)``.
            image: embeddings, ``(N, D)``.
            words: tokens of the texts, ``(N, L, D)``.
            shown: tokens of the images, the class token first, ``(N, T, D)``.
            there: which words are there, ``(N, L)`` booleans; the last of these ends its text.
        """
        rows, count = torch.arange(len(words)), words.shape[1]
        tokens = torch.cat([words, self.between.expand(len(words), 1, -1), shown], 1)
        hidden = torch.cat([~there, there.new_zeros(len(words), 1 + shown.shape[1])], 1)
        if self.as_released:
            hidden = hidden.to(tokens)  # which is added to what a key scores
        for block in self.blocks:
            tokens = block(tokens, hidden)
        ends = (there * torch.arange(1, count + 1, device=words.device)).argmax(-1)
        both = torch.cat([tokens[:, count + 1], tokens[rows, ends]], -1)  # (N, 2 * D)
        mixed = nn.functional.dropout(self.mix(both).relu(), self.dropout, self.training)
        found = self.out(mixed)
        share = self.weigh(found)  # (N, 3)
        return unit(share[:, :1] * text + share[:, 1:2] * found + share[:, 2:] * image)


@hookimpl
def methods():
    return {"trans-agg": TransAgg}
