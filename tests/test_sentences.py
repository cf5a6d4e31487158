"""Sentences token by token, and which token stands for a sentence: as the text tower says."""

from copy import copy

import pytest
import torch
from adaptkit_plugins.backbones import hf

from adaptkit import SentenceIds, SentenceTokens
from adaptkit.testing import toy_backbone
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.clip import CLIPBackbone
from adaptkit.towers.sentences import by_token
from tests.checkpoints import SENTENCES, make_clip, make_metaclip2, make_siglip


@pytest.mark.parametrize("make", [make_clip, make_metaclip2, make_siglip])
@pytest.mark.parametrize("count", [1, 4])
def test_the_token_that_the_tower_names_stands_for_the_sentence(make, count, tmp_path):
    backbone = hf.load(str(make(tmp_path)))
    with torch.no_grad():
        whole, words, ends = by_token(backbone, backbone.tokenize(SENTENCES[:count]))
        torch.testing.assert_close(whole, backbone.encode_text(SENTENCES[:count]), msg="sentences must be as ever")
    named = words[torch.arange(count), ends]
    assert words.shape[:2] == (count, words.shape[1]) and int(ends.min()) >= 0, "a place in each row"
    torch.testing.assert_close(named, whole, rtol=0, atol=1e-5, msg="and what leaves there is the sentence")
    if make is make_siglip:
        assert ends.tolist() == [words.shape[1] - 1] * count, "which is the last one, padding or not"
    else:
        near = (words - whole[:, None]).abs().sum(-1).argmin(-1)
        assert ends.tolist() == near.tolist(), "and no other is as near"


def test_a_tower_that_names_no_token_is_refused():
    class Mean(CLIPBackbone):
        ends = Backbone.ends

    backbone = copy(toy_backbone())
    backbone.__class__ = Mean
    words = SentenceTokens(count=4)
    with pytest.raises(ValueError, match="must read a sentence at one token; got Mean; choose another"):
        words.compute(backbone, words.collate(["a cat."], backbone))


@pytest.mark.parametrize("make", [make_clip, make_metaclip2])
def test_numbers_of_tokens_are_the_same_whatever_a_caption_is_tokenised_with(make, tmp_path):
    backbone = hf.load(str(make(tmp_path)))
    need = SentenceIds(count=24)
    alone = [need.compute(backbone, need.collate([sentence], backbone)) for sentence in SENTENCES]
    together = need.compute(backbone, need.collate(SENTENCES, backbone))
    assert torch.equal(torch.cat(alone), together), "padding depends on the others, and is no part of a caption"
    with torch.no_grad():
        for row, sentence in zip(need.read(together), SENTENCES, strict=True):
            got = backbone.encode_text({"input_ids": row[row >= 0][None]})
            torch.testing.assert_close(got, backbone.encode_text([sentence]), rtol=0, atol=1e-4)
    longest = int((need.read(together) >= 0).sum(1).max())
    small = SentenceIds(count=longest - 1)
    with pytest.raises(ValueError, match=f"at least the tokens of a caption, {longest}; got {longest - 1}; raise it"):
        small.compute(backbone, small.collate(SENTENCES, backbone))


def test_numbers_of_tokens_are_stored_to_the_last_digit():
    backbone, far = copy(toy_backbone()), 49_300  # as large as CLIP's; half precision has no odd ones there
    plain = toy_backbone().tokenize
    backbone.tokenize = lambda sentences: {"input_ids": plain(sentences)["input_ids"] + far}
    backbone.ends = lambda ids: torch.full((len(ids),), -1)
    need = SentenceIds(count=9)
    rows = need.compute(backbone, need.collate(["a cat."], backbone)).to(getattr(torch, need.dtype))
    own = need.read(rows)[rows >= 0] - far
    assert own.tolist() == plain(["a cat."])["input_ids"][0].tolist()[: len(own)] and len(own) > 3, "each as it was"
