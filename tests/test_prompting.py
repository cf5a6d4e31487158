"""Learned words in the place of written ones: where they stand, in what chunks, and when an answer is remembered."""

import copy

import pytest
import torch
from torch import nn

from adaptkit import Backbone, Prompts, unit
from adaptkit.testing import toy_backbone
from adaptkit.towers.clip import SiglipBackbone, torch_ids
from adaptkit.towers.once import Once
from adaptkit.towers.prompting import image_prompts

NAMES = ("cat", "great_white_shark", "sea owl", "fox", "hen")


class Padded:
    """Word-level tokens padded to full length, as SigLIP's: no start, and the end is the padding."""

    def __init__(self, length=16, pad=1):
        self.length, self.pad = length, pad

    def __call__(self, sentences):
        rows = [[2 + sum(map(ord, w)) % 90 for w in s.replace(".", "").split()] for s in sentences]
        return torch_ids([(row + [self.pad] * self.length)[: self.length] for row in rows])


def siglip():
    """A random SigLIP: no start of text, no causal mask, pooled at the last position."""
    from transformers import SiglipConfig, SiglipModel

    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    text = {**tower, "vocab_size": 96, "max_position_embeddings": 16, "projection_size": 16}
    config = SiglipConfig(text_config=text, vision_config={**tower, "image_size": 16, "patch_size": 8})
    torch.manual_seed(0)
    return SiglipBackbone(SiglipModel(config).requires_grad_(False), Padded(), None)


class Masked(Backbone):
    """A fake of a bidirectional tower: word embeddings, one mixing layer, the mean over what the mask lets through."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"words": nn.Embedding(96, 12), "mix": nn.Linear(12, 12)})
        self.points, self.width = {"text.tokens": self.model["words"]}, {"text": 12}
        self.freeze()

    def tokenize(self, sentences):
        rows = [[94, *(1 + sum(map(ord, w)) % 90 for w in s.replace(".", " .").split()), 95] for s in sentences]
        longest = max(map(len, rows))
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return torch_ids([row + [0] * (longest - len(row)) for row in rows]) | {"attention_mask": mask}

    def text(self, tokens):
        place = torch.arange(tokens["input_ids"].shape[1])[:, None] / 10
        hidden = (self.model["mix"](self.model["words"](tokens["input_ids"])) + place).tanh()
        mask = tokens["attention_mask"][..., None]
        return (hidden * mask).sum(1) / mask.sum(1)


BACKBONES = {"clip": toy_backbone, "siglip": siglip, "masked": Masked}


@pytest.fixture(params=BACKBONES)
def backbone(request):
    return BACKBONES[request.param]()


def contexts(prompts, width):
    """A context of every allowed shape."""
    classes = len(NAMES)
    shapes = [(), (classes,), (3, 1), (3, classes)]
    return [torch.randn(*shape, prompts.n, width).requires_grad_() for shape in shapes]


def counting(backbone, calls):
    """The backbone, noting how many sentences it encodes at a time."""
    noted = copy.copy(backbone)
    noted.encode_text = lambda tokens: calls.append(len(tokens["input_ids"])) or backbone.encode_text(tokens)
    return noted


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_words_as_tokenised_give_the_sentence_itself(backbone, position):
    prompts = Prompts(backbone, NAMES, init="a small photo of", position=position)
    sentence = {"end": "a small photo of {}.", "middle": "a small {} photo of.", "front": "{} a small photo of."}[
        position
    ]
    want = backbone.encode_text([sentence.format(name.replace("_", " ")) for name in NAMES])
    got = prompts.encode(prompts.words())
    assert torch.allclose(got, want, atol=1e-5), f"position {position!r} must read as {sentence!r}"


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_the_name_stays_whole_wherever_it_stands(backbone, position):
    prompts = Prompts(backbone, NAMES, n=3, position=position)
    written = backbone.tokenize(["X"])["input_ids"][0, backbone.prefix]
    for row, places, name in zip(prompts.tokens["input_ids"], prompts.places, NAMES, strict=True):
        assert (row[places] == written).all(), (
            f"learned words must replace fillers only; got {row[places]} for {name!r}"
        )
        assert (row == written).sum() == 3, f"every filler of {name!r} must be replaced"


def test_a_mark_in_the_words_is_the_place_of_the_name(backbone):
    prompts = Prompts(backbone, NAMES, init="a {} in a game", suffix="")
    want = backbone.encode_text([f"a {name.replace('_', ' ')} in a game" for name in NAMES])
    assert torch.allclose(prompts.encode(prompts.words()), want, atol=1e-5), "the name must stand at the mark"
    assert prompts.n == 4, "every word around the mark is learned"


def test_fewer_learned_words_than_written_ones_leave_the_last_as_they_are(backbone):
    prompts = Prompts(backbone, NAMES, n=2, init="a photo of a")
    ids, start = prompts.tokens["input_ids"], backbone.prefix
    plain = backbone.tokenize([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])["input_ids"]
    assert torch.equal(ids, plain), "the sentence must be whole"
    assert prompts.places.tolist() == [[start, start + 1]] * len(NAMES), "the first two words are learned"
    assert torch.equal(prompts.start(), prompts.words()), "learning must start from the words"


def test_a_random_start_has_the_standard_deviation_asked_for():
    start = Prompts(toy_backbone(), NAMES, n=30).start(std=0.5)
    assert start.shape == (30, 24), "one vector of the text tower's width per word"
    assert 0.4 < start.std() < 0.6, f"standard deviation must be near 0.5; got {start.std()}"


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_chunks_give_the_same_values_and_gradients_as_the_whole(backbone, chunk):
    whole, parts = (Prompts(backbone, NAMES, n=3, chunk=c) for c in (1000, chunk))
    deep = {1: torch.randn(3, backbone.width["text"]).requires_grad_()} if "text.block.0" in backbone.points else {}
    for context in contexts(whole, backbone.width["text"]):
        inputs, weight, results = [context, *deep.values()], None, []
        for prompts in (whole, parts):
            out = prompts.encode(context, deep)
            weight = torch.randn_like(out) if weight is None else weight
            results.append((out, *torch.autograd.grad((out * weight).sum(), inputs)))
        for got, want in zip(results[1], results[0], strict=True):
            assert torch.allclose(got, want, rtol=1e-4, atol=1e-5), f"chunks change what {tuple(context.shape)} gives"


def test_each_context_answers_as_if_it_were_alone(backbone):
    prompts = Prompts(backbone, NAMES, n=3, chunk=2)
    alone, own = contexts(prompts, backbone.width["text"])[2:]
    want = torch.stack([prompts.encode(context[0]) for context in alone])
    assert torch.allclose(prompts.encode(alone), want, atol=1e-5), "B contexts must not meet"
    assert torch.allclose(prompts.encode_each(alone[:, 0]), want, atol=1e-5), "encode_each is encode of B contexts"
    want = torch.stack([prompts.encode(context) for context in own])
    assert torch.allclose(prompts.encode(own), want, atol=1e-5), "B contexts of each class must not meet"


def test_chunks_are_encoded_again_in_the_backward_pass_only():
    calls = []
    prompts = Prompts(counting(toy_backbone(), calls), NAMES, n=3, chunk=2)
    context = torch.randn(3, 24).requires_grad_()
    out = prompts.encode(context)
    assert calls == [2, 2, 1], f"the forward pass must encode each class once; got {calls}"
    out.sum().backward()
    assert sorted(calls) == [1, 1, 2, 2, 2, 2], f"the backward pass must encode each class once more; got {calls}"
    calls.clear()
    with torch.no_grad():
        prompts.encode(context)
    assert calls == [2, 2, 1], f"without gradients nothing is encoded twice; got {calls}"


def test_memory_does_not_grow_with_the_classes():
    held = []
    for chunk in (1, 1000):
        prompts, bytes_ = Prompts(toy_backbone(), NAMES * 8, n=3, chunk=chunk), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, b=bytes_: b.append(t.nbytes) or t, lambda t: t):
            prompts.encode(torch.randn(3, 24).requires_grad_())
        held.append(sum(bytes_))
    assert held[0] < held[1] / 20, f"chunks must not keep activations; got {held[0]} bytes against {held[1]}"


def test_an_answer_is_remembered_while_the_context_stays_the_same():
    calls = []
    prompts = Prompts(counting(toy_backbone(), calls), NAMES, n=3)
    context = nn.Parameter(torch.randn(3, 24))
    with torch.no_grad():
        first = prompts.encode(context)
        assert prompts.encode(context.clone()) is first and len(calls) == 1, (
            "an equal context must not be encoded again"
        )
        context += 1
        assert not torch.equal(prompts.encode(context), first), "a changed context must be encoded again"
        assert not torch.equal(prompts.encode(context, {1: context}), first), "deep prompts are part of the question"
        changed = copy.deepcopy(prompts).encode(context - 1)
        assert torch.allclose(changed, first), "a copy must have a memory of its own"
    assert prompts.encode(context).requires_grad, "what is remembered must never cut a gradient"
    context.requires_grad_(False)
    assert not prompts.encode(context).requires_grad, "a frozen context has no gradient"


def test_what_others_tap_is_neither_remembered_nor_lost():
    backbone, scale = toy_backbone(), nn.Parameter(torch.ones(()))
    prompts = Prompts(backbone, NAMES, n=3, chunk=2)
    context = torch.randn(3, 24).requires_grad_()
    plain = prompts.encode(context.detach())
    with backbone.taps({"text.block.0": lambda _, out: 2 * scale * out}):
        doubled = prompts.encode(context.detach())
        out = prompts.encode(context)
    out.square().sum().backward()
    assert not torch.allclose(doubled, plain), "a tap around encode must act"
    assert torch.equal(prompts.encode(context.detach()), plain), "what a tap did must be forgotten with it"
    assert context.grad is not None and scale.grad is not None, "gradients must pass through a tap that is gone by then"


def test_once_computes_again_for_other_values_shapes_and_numbers_of_tensors():
    once, calls = Once(), []
    for inputs, count in [
        ((torch.ones(2),), 1),
        ((torch.ones(2),), 1),
        ((torch.zeros(2),), 2),
        ((torch.zeros(1, 2),), 3),
        ((torch.zeros(1, 2), torch.ones(1)), 4),
    ]:
        once(lambda: calls.append(0) or torch.ones(()), *inputs)
        assert len(calls) == count, (
            f"{inputs} must have been the question number {count}; got {len(calls)} computations"
        )


def test_deep_prompts_replace_what_the_block_before_made_of_the_context():
    backbone, seen = toy_backbone(), []
    prompts = Prompts(backbone, NAMES, n=2, init="a photo of a")
    context, deep = torch.randn(2, 24), torch.randn(len(NAMES), 2, 24)
    plain = prompts.encode(context)
    handle = backbone.points["text.block.1"].module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
    )
    try:
        out = prompts.encode(context, {1: deep})
    finally:
        handle.remove()
    args, kwargs = seen[0]
    entering = args[0] if args else kwargs["hidden_states"]
    assert torch.equal(entering[:, 1:3], deep), "each class's own prompt must enter block 1 in the context's place"
    assert not torch.allclose(out, plain), "deep prompts must matter"
    with pytest.raises(ValueError, match="block 1 or a later one"):
        prompts.encode(context, {0: deep})


def test_image_prompts_follow_the_patches_and_are_replaced_block_by_block():
    backbone, entering = toy_backbone(), []
    first, second = torch.randn(3, 32), torch.randn(3, 32)
    pixels = torch.randn(2, 3, 32, 32)
    record = {
        "image.block.0": lambda x, out: entering.append(x) or out,
        "image.block.1": lambda x, out: entering.append(x) or out,
    }
    with backbone.taps(record):
        backbone.encode_image(pixels)
        with backbone.taps(image_prompts([first, second])):
            backbone.encode_image(pixels)
    plain, tapped = entering[:2], entering[2:]
    assert [t.shape[1] for t in tapped] == [plain[0].shape[1] + 3] * 2, "the sequence is longer by the prompts, once"
    assert torch.equal(tapped[0][:, :-3], plain[0]), "class token and patches must enter block 0 as they were"
    assert torch.equal(tapped[1][:, -3:], second.expand(2, -1, -1)), (
        "the second prompt must replace the first's outputs"
    )


@pytest.mark.parametrize("n", [14, 15, 40])
def test_a_sentence_that_is_cut_off_is_an_error(n):
    with pytest.raises(ValueError, match=r"must be shorter than 16 tokens; got 'X X .*'; choose fewer words"):
        Prompts(siglip(), NAMES, n=n)


def test_a_context_of_another_length_is_an_error():
    prompts = Prompts(toy_backbone(), NAMES, n=3)
    for n in (2, 4):
        with pytest.raises(ValueError, match=f"must have 3 words; got {n}"):
            prompts.encode(torch.randn(n, 24))


def test_directions_survive_normalising(backbone):
    prompts = Prompts(backbone, NAMES, n=3)
    out = unit(prompts.encode(prompts.start()))
    assert out.isfinite().all(), "class embeddings must be finite at the start of training"
