"""Banzhaf's interaction by its definition, over every coalition; and how tokens are merged."""

import itertools

import pytest
import torch

from adaptkit.methods.coalitions import sampled_interactions
from adaptkit.methods.merging import merged_tokens


def slow_worth(like, words, frames, of_words, of_frames):
    """Weighted means of maxima in both directions, of those that are in a coalition; 0 of none."""
    if not words or not frames:
        return 0.0
    a, b = of_words[words].softmax(0), of_frames[frames].softmax(0)
    part = like[words][:, frames]
    return float(a @ part.amax(1) + b @ part.amax(0)) / 2


def test_sampled_interactions_are_banzhafs_where_every_coalition_is_drawn_once():
    n, m = 3, 2
    torch.manual_seed(0)
    like, of_words, of_frames = torch.randn(n, m), torch.randn(n), torch.randn(m)
    drawn = torch.tensor([*itertools.product((0.0, 1.0), repeat=n + m)])  # (32, n + m)
    draws = [part.expand(n, m, 1, *part.shape).transpose(2, 3) for part in drawn.split([n, m], 1)]  # (n, m, 32, 1, ..)
    there = (torch.ones(1, n).bool(), torch.ones(1, m).bool())
    found = sampled_interactions(like[None], there, (of_words[None], of_frames[None]), draws, released=False)
    for i, j in itertools.product(range(n), range(m)):
        total = 0.0
        for coalition in drawn.bool().tolist():
            words = [k for k in range(n) if coalition[k] and k != i]
            frames = [k for k in range(m) if coalition[n + k] and k != j]
            more, further = sorted([*words, i]), sorted([*frames, j])
            given = (of_words, of_frames)
            total += slow_worth(like, more, further, *given) + slow_worth(like, words, frames, *given)
            total -= slow_worth(like, more, frames, *given) + slow_worth(like, words, further, *given)
        assert float(found[0, i, j]) == pytest.approx(total / len(drawn), abs=1e-5), f"of word {i} and frame {j}"


def test_tokens_of_two_groups_are_merged_into_two_means_and_padding_into_none():
    torch.manual_seed(0)
    near, far = 0.01 * torch.randn(3, 4), 5 + 0.01 * torch.randn(2, 4)
    tokens = torch.cat([near, far, torch.full((2, 4), 9.0)])[None]
    there = torch.tensor([[True] * 5 + [False] * 2])
    merged, kept = merged_tokens(tokens, there, torch.zeros(1, 7), 2, near=1)
    means = torch.stack([near.mean(0), far.mean(0)])
    assert torch.allclose(merged[0], means, atol=1e-5) and kept.all(), "each group is one token, in their order"
    alone, kept = merged_tokens(tokens, there & (torch.arange(7) < 1), torch.zeros(1, 7), 2, near=3)
    assert kept.sum() == 1 and torch.allclose(alone[kept], tokens[0, :1]), "one token stays as it is"
    same, kept = merged_tokens(torch.ones(1, 4, 3), torch.ones(1, 4).bool(), torch.zeros(1, 4), 2, near=2)
    assert same[kept].eq(1).all() and same.isfinite().all(), "equal ones merge into what they are"
