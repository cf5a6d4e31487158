"""Retrieval by tokens: patches of frames, levels that are balanced, and queries inverted into tokens."""

from dataclasses import replace

import pytest
import torch

from adaptkit import Sentence, Task, adapt, method, predict
from adaptkit.features.needs import Dense, FramePatches
from adaptkit.methods.adapt import retarget
from adaptkit.methods.blocks import TellingTokens
from adaptkit.methods.sinkhorn import balancing
from adaptkit.testing import ToyImages, toy_backbone
from adaptkit.testing.kinds import toy_of


def test_patches_of_frames_are_those_of_images_and_zeros_where_there_is_no_frame():
    backbone, image = toy_backbone("0"), ToyImages("x", 5).image(0)
    need = FramePatches(count=4, unit=False)
    prepared = [need.prepare([image] * n, backbone, -1, "") for n in (1, 3, 9)]
    rows = need.compute(backbone, need.collate(prepared, backbone))
    assert rows.shape == (3, *need.shape(backbone)), "tokens of each frame"
    assert rows.any(-1).any(-1).tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], "frames there are come first"
    alone = Dense(attention="own", unit=False).compute(backbone, prepared[0][:1])
    assert torch.allclose(rows[2, 3], alone[0], atol=1e-5), "as they are of an image"


def test_the_tokens_that_tell_most_stay_in_their_order_and_are_learned_through_their_share():
    torch.manual_seed(0)
    telling, x, tokens = TellingTokens(8, kept=2), torch.randn(3, 8), torch.randn(3, 5, 8)
    found = telling(x, tokens)
    unit_tokens = tokens / tokens.norm(dim=-1, keepdim=True)
    places = [
        [(row - one).norm(dim=-1).argmin().item() for one in some] for row, some in zip(unit_tokens, found, strict=True)
    ]
    assert all(a < b for a, b in places), f"in their order; got {places}"
    assert torch.allclose(found.norm(dim=-1), torch.ones(3, 2)), "of unit norm"
    assert torch.allclose(telling(x, found), found), "what was chosen is not chosen from again"
    found.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in list(telling.parameters())[:-1]), "the choice is learned"


def test_balanced_logits_give_every_item_the_same_share():
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 4, 6)
    rows, columns = balancing(logits, sweeps=200)
    shares = (logits + rows[..., None] + columns[:, None]).exp()
    assert torch.allclose(shares.sum(1), shares.sum(1).mean(-1, keepdim=True).expand(-1, 6), rtol=1e-4), "columns alike"
    assert torch.allclose(shares.sum(2), shares.sum(2).mean(-1, keepdim=True).expand(-1, 4), rtol=1e-4), "rows alike"
    rows, columns = balancing(logits, sweeps=0)
    assert columns.std() == 0 and rows.std() == 0, "no sweep prefers none"


@pytest.mark.parametrize("name", ["uco-fia", "hbi"])
def test_padding_of_sequences_and_texts_changes_nothing(name):
    torch.manual_seed(0)
    text, words, frames, patches = (torch.randn(5, *rest, 8) for rest in ((), (3,), (2,), (2, 4)))
    options = {"words_read": 6, "frames_read": 4, "schedule": {"steps": 0}}
    options |= {"kept": 4} if name == "uco-fia" else {"levels": 1}
    answers = []
    for more_words, more_frames in ((0, 0), (3, 2)):
        said = torch.cat([words, words.new_zeros(5, more_words, 8)], 1)
        shown = torch.cat([frames, frames.new_zeros(5, more_frames, 8)], 1)
        seen = torch.cat([patches, patches.new_zeros(5, more_frames, 4, 8)], 1)
        torch.manual_seed(1)
        made = method(name, **{**options, "words_read": said.shape[1], "frames_read": shown.shape[1]})
        parts = {"frames": shown, "patches": seen} if name == "uco-fia" else {"frames": shown}
        task = Task.from_pairs(({"text": text, "words": said, **parts}, range(5)), parts)
        answers.append(predict(adapt(made, task), {"text": text, "words": said}))
    assert torch.allclose(*answers, atol=1e-3), "what is not there has no part"


def test_the_balance_is_made_anew_for_another_gallery():
    task, queries = toy_of("toy-sequences")
    learned = adapt(method("uco-fia", schedule={"steps": 2}, bank=8), task)
    assert len(learned.known_text) == 8 and learned.bias.std() > 0, "of so many texts, and it differs by item"
    order = torch.arange(len(task.gallery)).flip(0)
    names = tuple(task.classnames[i] for i in order)
    other = retarget(learned, replace(task, gallery=task.gallery[order], classnames=names, support=task.support[:0]))
    assert torch.allclose(predict(other, queries), predict(learned, queries)[:, order], atol=1e-3), "the same scores"


@pytest.mark.parametrize("template", ["a photo of {}", "{} on a table.", "{}", "a {} dog."])
def test_words_of_an_inverted_image_stand_in_their_place_among_words_that_stay(template):
    task, _ = toy_of("toy-alike")
    inverted = adapt(method("cross-the-gap-oti", template=template, n=2, schedule={"steps": 1}), task)
    backbone, signs = task.backbone, template.format("£ £")
    known = backbone.words(backbone.tokenize(["£"]))[0, backbone.prefix]
    written = inverted.encode(known.expand(1, 2, -1))
    assert torch.allclose(written, backbone.encode_text([signs]), atol=1e-5), f"as if {signs!r} had been written"


def test_inverted_queries_come_nearer_and_texts_are_searched_by_texts():
    task, queries = toy_of("toy-pairs")
    texts = task.support.bind({"text": Sentence(unit=False, of="text")}).text
    given = replace(Task.from_pairs(None, {"item": texts[:7]}), backbone=task.backbone)
    inverted = adapt(method("cross-the-gap-ovi", searched="texts", schedule={"steps": 30}), given)
    start = inverted.start.expand(5, -1, -1)
    before, after = (inverted.apart(tokens, texts[:5]) for tokens in (start, inverted.inverted(texts[:5], start)))
    assert (after < before).all(), "an inversion points where the query does, more than its start"
    assert inverted(queries[:3]).shape == (3, 7), "a row for each query"
    assert inverted(queries[:0]).shape == (0, 7), "and none for none"


def test_a_template_without_a_place_is_refused_in_a_line():
    with pytest.raises(ValueError, match="got 'a photo'"):
        adapt(method("cross-the-gap-oti", template="a photo"), toy_of("toy-alike")[0])


def test_a_template_without_a_place_is_refused_where_it_is_given():
    with pytest.raises(ValueError, match=r"^template must hold one \{\}, where the tokens stand; got 'no place'$"):
        method("cross-the-gap-oti", template="no place")
