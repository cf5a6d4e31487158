"""Sentences that begin alike, in rows that hold their beginning once: what a causal tower then reads only once.

Each token sees the beginning and what stands before it in its own sentence, at the positions it has there. So every sum
has the terms that it has for a sentence alone, and answers are the same up to rounding.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from adaptkit.towers.backbone import Backbone
from adaptkit.towers.chunks import chunked
from adaptkit.towers.points import Tap

WORTH = 0.9  # of the tokens of sentences one by one: with more, rows are not worth their wider attention
LOTS = 16  # lots of rows that stay where the tower is, from step to step
MULTIPLE = 8  # of which a row's length is one: attention on a GPU wants its mask aligned


class PackedRows(NamedTuple):
    """Some rows as the tower and the taps of learned words take them.

    Attributes:
        tokens: what `CLIPBackbone.text` takes: ``input_ids`` and ``position_ids``, ``(R, T)``; ``attention_mask``,
            ``(R, 1, T, T)``, true where one is seen; and ``ends``, ``(P,)``, where sentences end in the flat rows.
        at: flat places of learned words, ``(K,)``.
        words: which of the contexts' words stand there, ``(K,)``: those of the second context follow the first's.
        n: words of a context.
    """

    tokens: dict[str, Tensor]
    at: Tensor
    words: Tensor
    n: int


class Packs:
    """Where P sentences stand in R rows of T tokens.

    Attributes:
        counts: sentences of each row, ``(R,)``.
        order: sentences, as the rows hold them one after the other, ``(P,)``.
        shape: R and T.
        whole: sentences, each by itself, that have as many tokens as a row.
    """

    def __init__(self, ids: Tensor, ends: Tensor, places: Tensor, width: int, most: int) -> None:
        """Lay out.

        Args:
            ids: tokens of the sentences, ``(P, L)``.
            ends: the last place of each that is read, ``(P,)``.
            places: of learned words, the same in each, ``(P, n)``.
            width: of the tower, which says how much of attention is worth one token less.
            most: sentences in a row.
        """
        self._taken: dict[tuple[int, int, torch.device], PackedRows] = {}
        shared = begins_alike(ids, ends, places)
        rest = (ends + 1 - shared).tolist()
        room = max(*rest, math.isqrt(shared * (6 * width + shared)))  # the least work, if a block is 24 W^2 a token
        rows = balanced(rest, max(math.ceil(sum(rest) / room), math.ceil(len(rest) / most)))
        length = shared + max(sum(rest[i] for i in row) for row in rows)
        self.shape = len(rows), -(-length // MULTIPLE) * MULTIPLE
        self.whole = -(-self.shape[1] // int(ends.max() + 1))
        self.counts = torch.tensor([len(row) for row in rows])
        self.order = torch.tensor([i for row in rows for i in row])
        self._fill(ids, places, rows, rest, shared)

    def _fill(self, ids: Tensor, places: Tensor, rows: Sequence[Sequence[int]], rest: list[int], shared: int) -> None:
        n, (count, length) = places.shape[1], self.shape
        self.ids, self.positions = ids[0, 0].repeat(count, length), torch.zeros(count, length, dtype=torch.long)
        self.word = torch.full((count, length), -1)
        owner = torch.full((count, length), -1)  # of each token: its sentence; -1 for padding, which sees itself alone
        ends = []
        for r, row in enumerate(rows):
            start, begin = shared, torch.arange(shared)
            self.ids[r, :shared], self.positions[r, :shared] = ids[row[0], :shared], begin
            for i in row:
                own = slice(start, start + rest[i])
                self.ids[r, own] = ids[i, shared : shared + rest[i]]
                self.positions[r, own], owner[r, own] = torch.arange(shared, shared + rest[i]), i
                there = torch.where(places[i] < shared, places[i], places[i] - shared + start)
                self.word[r, there] = torch.arange(n)
                start += rest[i]
                ends.append(start - 1)
        self.ends = torch.tensor(ends)  # in each one's row, (P,)
        before = torch.ones(length, length, dtype=torch.bool).tril()
        begun = torch.arange(length) < shared
        same = (owner[:, :, None] == owner[:, None]) & (owner[:, None] >= 0)
        used = begun | (owner >= 0)
        self.sees = (before & (same | begun) & used[:, :, None]) | torch.eye(length, dtype=torch.bool)  # (R, T, T)

    @property
    def tokens(self) -> int:
        """Tokens in all rows, padding counted."""
        return self.shape[0] * self.shape[1]

    def encode(self, backbone: Backbone, context: Tensor, deep: Mapping[int, Tensor], size: int) -> Tensor:
        """Raw class embeddings, ``(P, D)``, or ``(B, P, D)`` for B contexts.

        Args:
            backbone: one that takes packs, and nothing of which others have tapped.
            context: learned words, ``(n, W)``, or ``(B, 1, n, W)``.
            deep: what replaces them on entering a block, ``(n, W)``, by the block's number.
            size: rows at a time; 0 for all.
        """
        batch = context.shape[:1] if context.dim() == 4 else ()
        words, n = context.flatten(0, -2), context.shape[-2]  # (n, W), or (B * n, W)

        def encode(rows: Tensor) -> Tensor:
            return _encode(backbone, self.take(rows, n, words.device), words, deep)

        rows = torch.arange(self.shape[0] * math.prod(batch))
        out = chunked(encode, rows, size or len(rows)).unflatten(0, (*batch, len(self.order)))
        return out.index_select(-2, self.order.argsort().to(out.device))

    def take(self, rows: Tensor, n: int, device: torch.device) -> PackedRows:
        """Some rows, by number: those of B contexts of `n` words follow one another, R of each."""
        key = int(rows[0]), len(rows), device
        if key not in self._taken:
            self._taken = {k: taken for k, taken in [*self._taken.items()][1 - LOTS :]}
            self._taken[key] = self._take(rows, n, device)
        return self._taken[key]

    def _take(self, rows: Tensor, n: int, device: torch.device) -> PackedRows:
        own, length = rows % self.shape[0], self.shape[1]
        word = self.word[own].flatten()  # (R' * T,)
        at = (word >= 0).nonzero()[:, 0]
        context = (rows // self.shape[0]).repeat_interleave(length)
        of_row = self.ends.split(self.counts.tolist())
        ends = torch.cat([of_row[r] + k * length for k, r in enumerate(own.tolist())])
        tokens = {"input_ids": self.ids[own], "position_ids": self.positions[own], "ends": ends}
        tokens["attention_mask"] = self.sees[own][:, None]
        words = (word[at] + n * context[at]).to(device)
        return PackedRows({name: value.to(device) for name, value in tokens.items()}, at.to(device), words, n)


def _encode(backbone: Backbone, rows: PackedRows, context: Tensor, deep: Mapping[int, Tensor]) -> Tensor:
    def put(_: Tensor, words: Tensor, prompt: Tensor, which: Tensor) -> Tensor:
        there = prompt[which].to(words.dtype)
        return words.flatten(0, 1).index_copy(0, rows.at, there).view_as(words)

    taps: dict[str, Tap] = {"text.tokens": partial(put, prompt=context, which=rows.words)}
    taps |= {f"text.block.{b - 1}": partial(put, prompt=p, which=rows.words % rows.n) for b, p in deep.items()}
    last, ends = f"text.block.{backbone.depth['text'] - 1}", rows.tokens["ends"]
    # nobody reads what leaves the last block but at the ends: its widest part is spared the rest
    taps[f"{last}.norm2"] = lambda _, out: out.flatten(0, 1)[ends]
    taps[f"{last}.fc2"] = lambda _, out: on_zeros(out, ends, rows.tokens["input_ids"].shape)
    with backbone.taps(taps):
        return backbone.encode_text(rows.tokens)


def on_zeros(rows: Tensor, at: Tensor, shape: Sequence[int]) -> Tensor:
    """Rows, ``(P, W)``, at flat places of a grid of zeros, ``(*shape, W)``."""
    return rows.new_zeros(math.prod(shape), rows.shape[-1]).index_copy(0, at, rows).unflatten(0, shape)


def begins_alike(ids: Tensor, ends: Tensor, places: Tensor) -> int:
    """How many tokens all sentences begin with, learned words counted, one at least left to each.

    Args:
        ids: ``(P, L)``.
        ends: ``(P,)``.
        places: of learned words, the same in each sentence, ``(P, n)``.
    """
    learned = torch.zeros_like(ids).scatter_(1, places, torch.arange(1, places.shape[1] + 1).expand_as(places))
    alike = ((ids == ids[0]) & (learned == learned[0])).all(0)
    return min(int(alike.long().cumprod(0).sum()), int(ends.min()))


def balanced(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Things in about equally full rows: each, the largest first, goes where the least is."""
    rows: list[list[int]] = [[] for _ in range(min(count, len(sizes)))]
    filled = [(0, r) for r in range(len(rows))]
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        full, r = heapq.heappop(filled)
        rows[r].append(i)
        heapq.heappush(filled, (full + sizes[i], r))
    return rows
