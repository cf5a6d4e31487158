"""Sentences token by token, and which token stands for a sentence: as the text tower says."""

from copy import copy

import pytest
import torch
from adaptkit_plugins.backbones import hf

from adaptkit import SentenceTokens
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
