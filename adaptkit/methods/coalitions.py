"""Words and frames as players of a game: what a pair adds beyond its members, sampled, or predicted by a network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def shares(weights: Tensor, there: Tensor) -> Tensor:
    """Softmax of weights over those that are there, ``(..., T)``; equal where none is."""
    return weights.masked_fill(~there, torch.finfo(weights.dtype).min).softmax(-1)


def likest(like: Tensor, there: Tensor, released: bool = False) -> Tensor:
    """The largest of similarities that are there, ``(..., n, m)`` to ``(..., n)``; 0 where none is.

    Where it is done as `released`, one that is not there counts as 0.
    """
    best = like.masked_fill(~there, 0.0 if released else -torch.inf).amax(-1)
    return best.masked_fill(~there.any(-1), 0.0)


def token_worth(like: Tensor, there: Tensor, words: Tensor, frames: Tensor, released: bool = False) -> Tensor:
    """How alike a text and a sequence are, ``(...)``: each token's likest other one, weighed, in both directions.

    Args:
        like: similarities of tokens, ``(..., n, m)``.
        there: which of them count, likewise.
        words: shares of the n words, ``(..., n)``.
        frames: shares of the m frames, ``(..., m)``.
        released: see `likest`.
    """
    by_word = (likest(like, there, released) * words).sum(-1)
    by_frame = (likest(like.mT, there.mT, released) * frames).sum(-1)
    return (by_word + by_frame) / 2


def sampled_interactions(
    like: Tensor,
    there: tuple[Tensor, Tensor],
    weights: tuple[Tensor, Tensor],
    draws: tuple[Tensor, Tensor],
    released: bool,
) -> Tensor:
    """Banzhaf's interaction of each word with each frame, ``(B, n, m)``, a mean over sampled coalitions of the others.

    Args:
        like: similarities of B pairs' tokens, ``(B, n, m)``.
        there: which words and which frames are there, ``(B, n)`` and ``(B, m)``.
        weights: of words and of frames, before the softmax, likewise.
        draws: numbers from 0 to 1 for each word, frame and coalition, ``(n, m, K, B, n)`` and ``(n, m, K, B, m)``; who
            draws more than a half is in it.
        released: what both add to a coalition is their own similarity only, and their weights are mixed with shares.
    """
    total, (n, m) = torch.zeros_like(like), like.shape[1:]
    one = torch.eye(n, device=like.device).bool()[:, None, None]  # (n, 1, 1, n)
    other = torch.eye(m, device=like.device).bool()[None, :, None]  # (1, m, 1, m)
    for k in range(draws[0].shape[2]):
        words = (draws[0][:, :, k] > 0.5) & there[0] & ~one  # (n, m, B, n)
        frames = (draws[1][:, :, k] > 0.5) & there[1] & ~other  # (n, m, B, m)
        more_words, more_frames = words | one, frames | other
        of_words, of_frames = shares(weights[0], words), shares(weights[1], frames)
        with_word, with_frame = shares(weights[0], more_words), shares(weights[1], more_frames)
        neither = token_worth(like, met(words, frames), of_words, of_frames, released)
        word = token_worth(like, met(more_words, frames), with_word, of_frames, released)
        frame = token_worth(like, met(words, more_frames), of_words, with_frame, released)
        both = met(more_words, more_frames)
        if released:
            both = met(words, frames) | met(one, other)
            with_word = shares(torch.where(one, weights[0], of_words), more_words)
            with_frame = shares(torch.where(other, weights[1], of_frames), more_frames)
        together = token_worth(like, both, with_word, with_frame, released)
        total = total + (together + neither - word - frame).permute(2, 0, 1)
    return total / draws[0].shape[2] * met(*there)


def met(words: Tensor, frames: Tensor) -> Tensor:
    """Where words and frames that are there meet, ``(..., n, m)``."""
    return words[..., :, None] & frames[..., None, :]


class InteractionPredictor(nn.Module):
    """Interactions from similarities of tokens, ``(..., n, m)``: two convolutions, and attention between them.

    Args:
        planes: channels.

    >>> import torch
    >>> InteractionPredictor(6)(torch.randn(3, 4, 5)).shape
    torch.Size([3, 4, 5])
    """

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, planes, 3, padding=1), nn.Conv2d(planes, 1, 3, padding=1)
        self.query, self.key, self.value = (nn.Parameter(torch.randn(planes, planes) / planes) for _ in range(3))

    def forward(self, like: Tensor) -> Tensor:
        """Interactions, ``(..., n, m)``."""
        tokens = self.first(like.flatten(0, -3)[:, None]).relu().flatten(2).mT  # (B, n * m, planes)
        attended = F.softmax(tokens @ self.query @ (tokens @ self.key).mT, -1) @ tokens @ self.value
        return self.last((tokens + attended).mT.unflatten(2, like.shape[-2:])).view_as(like)
