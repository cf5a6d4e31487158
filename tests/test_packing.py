"""Sentences that share a beginning: the answers and gradients of sentences alone, in fewer tokens."""

import copy

import pytest
import torch

from adaptkit import Prompts
from adaptkit.testing import toy_backbone
from adaptkit.testing.toy import toy_tokenizer
from adaptkit.towers.chunks import at_once
from adaptkit.towers.clip import CLIPBackbone
from adaptkit.towers.packing import Packs, balanced, begins_alike
from tests.test_prompting import siglip

NAMES = ["cat", "great white shark", "sea owl", "a fox in the high snow", "hen"] + [
    f"n{i} of some kind" for i in range(9)
]


def clip(depth=3, heads=2, width=24, attention="sdpa"):
    """A random CLIP."""
    from transformers import CLIPConfig, CLIPModel

    tower = {"num_hidden_layers": depth, "num_attention_heads": heads, "hidden_size": width, "intermediate_size": 40}
    text = {**tower, "vocab_size": 96, "max_position_embeddings": 32}
    config = CLIPConfig(text_config={**text, "eos_token_id": 95, "bos_token_id": 94}, vision_config=tower)
    torch.manual_seed(0)
    model = CLIPModel(config)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
    model.set_attn_implementation(attention)
    return CLIPBackbone(model, toy_tokenizer, None)


def alone(backbone):
    """The same towers, whose sentences are encoded each by itself."""
    other = copy.copy(backbone)
    other.__class__ = type("Alone", (type(backbone),), {"takes_packs": False})
    return other


def both(backbone, context, deep=None, *, packed=True, **how):
    """Class embeddings and gradients, packed (if they are to be) and each alone."""
    results, weight = [], None
    for tower in (backbone, alone(backbone)):
        prompts = Prompts(tower, NAMES, n=context.shape[-2], **how)
        inputs = [context, *(deep or {}).values()]
        out = prompts.encode(context, deep)
        weight = torch.randn_like(out) if weight is None else weight
        results.append([out, *torch.autograd.grad((out * weight).sum(), inputs)])
    assert bool(Prompts(backbone, NAMES, n=context.shape[-2], **how).packs()) == packed, "who shares little stays alone"
    assert prompts.packs() is None, "and those that they are held against must not"
    return results


def ensure_equal(results, what):
    for got, want in zip(*results, strict=True):
        assert torch.allclose(got, want, rtol=1e-4, atol=2e-5), f"{what}: packed must be as alone; off {got - want}"


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("chunk", ["auto", 4, 5, 1000])
def test_packed_sentences_are_as_each_alone_with_their_gradients(position, chunk):
    for shape in [(6,), (2, 1, 6), (1, 1, 6)]:
        context = torch.randn(*shape, 24).requires_grad_()
        found = both(clip(), context, position=position, chunk=chunk, packed=position != "front")
        ensure_equal(found, f"{position}, {shape}, {chunk}")


@pytest.mark.parametrize("made", [{"depth": 1}, {"heads": 4, "width": 16}, {"attention": "eager"}])
def test_any_tower_may_be_packed(made):
    backbone = clip(**made)
    deep = {b: torch.randn(5, backbone.width["text"]).requires_grad_() for b in range(1, backbone.depth["text"])}
    context = torch.randn(5, backbone.width["text"]).requires_grad_()
    ensure_equal(both(backbone, context, deep), str(made))
    context = torch.randn(2, backbone.width["text"]).requires_grad_()
    ensure_equal(both(backbone, context, init="a photo of the big good"), f"{made}, written words behind learned ones")


def test_a_tower_that_reads_its_padding_is_not_packed():
    assert not siglip().takes_packs, "SigLIP sees all its tokens from everywhere"
    assert Prompts(siglip(), NAMES[:3], n=3, chunk=1000).packs() is None, "so its sentences stay alone"
    own = copy.copy(clip())
    own.__class__ = type("Own", (CLIPBackbone,), {"text": lambda self, tokens: tokens})
    assert clip().takes_packs and not own.takes_packs, "a text of one's own need not know packs"


def test_few_sentences_and_contexts_of_their_own_stay_alone():
    backbone = toy_backbone()
    assert Prompts(backbone, NAMES[:3], n=3).packs() is None, "three sentences are not worth it"
    calls = []
    noted = copy.copy(backbone)
    noted.encode_text = lambda tokens: calls.append("ends" in tokens) or backbone.encode_text(tokens)
    prompts = Prompts(noted, NAMES, n=3)
    prompts.encode(torch.randn(len(NAMES), 3, 24))
    prompts.encode(torch.randn(3, 24), {1: torch.randn(len(NAMES), 3, 24)})
    prompts.encode(torch.randn(3, 24))
    assert calls == [False, False, True], f"only what begins alike may share its beginning; got {calls}"


def test_swapped_weights_act_in_packed_sentences_and_their_gradients_come_later():
    results = []
    for backbone in (tower := clip(), alone(tower)):
        scale, context = torch.ones((), requires_grad=True), torch.zeros(6, 24, requires_grad=True)
        with backbone.weights({"text.block.0.q": scale * 2 * backbone.weight("text.block.0.q")}):
            out = Prompts(backbone, NAMES, n=6).encode(context)
        results.append([out, *torch.autograd.grad(out.square().sum(), [scale, context])])
    ensure_equal(results, "swapped weights")


def test_rows_hold_every_sentence_once_at_its_own_positions():
    ids = torch.tensor([[9, 1, 1, 3, 8, 0], [9, 1, 1, 4, 5, 8], [9, 1, 1, 8, 0, 0]])
    ends, places = torch.tensor([4, 5, 3]), torch.tensor([[1, 2]] * 3)
    assert begins_alike(ids, ends, places) == 3, "the start and both learned words"
    packs = Packs(ids, ends, places, width=1, most=2)
    assert packs.shape == (2, 8), f"two sentences to a row; got {packs.shape}"
    rows = packs.take(torch.arange(2), 2, torch.device("cpu"))
    read = rows.tokens["input_ids"].flatten()[rows.tokens["ends"]]
    assert read.tolist() == [8] * 3, f"each sentence must be read at its end; got {read}"
    assert sorted(packs.order.tolist()) == [0, 1, 2], "each sentence must stand in one row"
    at = rows.tokens["position_ids"].flatten()[rows.tokens["ends"]]
    assert at.tolist() == ends[packs.order].tolist(), "an end must have the position that it has alone"


def test_rows_are_about_equally_full():
    rows = balanced([5, 1, 4, 2, 3, 3], 3)
    assert sorted(sum([5, 1, 4, 2, 3, 3][i] for i in row) for row in rows) == [6, 6, 6], rows
    assert len(balanced([1], 4)) == 1, "no row may be empty"


def test_a_processor_takes_the_same_number_of_sentences_always():
    assert at_once(toy_backbone(), 20) == at_once(toy_backbone(), 77) == 256, "as the same numbers come from it"
    assert Prompts(toy_backbone(), NAMES, n=3).chunk == 256 and Prompts(toy_backbone(), NAMES, chunk=7).chunk == 7


def test_a_gpu_with_little_memory_is_told_of(monkeypatch):
    said, backbone = [], toy_backbone()
    free = 3 * 4 * 24 * backbone.width["text"] * backbone.depth["text"] * 20  # bytes of three sentences of 20 tokens
    memory = {"mem_get_info": (free, free), "memory_reserved": free, "memory_allocated": 0}
    for name, value in memory.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device, value=value: value)
    monkeypatch.setattr(type(backbone), "device", torch.device("cuda"))
    assert at_once(backbone, 20) == 3, "half of what is free and of what is held for later, in sentences"
    monkeypatch.setattr("adaptkit.towers.prompting.notice", said.append)
    prompts = Prompts.__new__(Prompts)
    prompts.backbone, prompts.tokens, prompts._chunk = backbone, {"input_ids": torch.zeros(10, 20)}, 0
    assert prompts.chunk == prompts.chunk == 3, "it is looked at once"
    assert said == ["3 of 10 sentences fit into the GPU's free memory: the rest is computed twice"], said


def test_less_is_kept_for_the_backward_pass_of_packed_sentences():
    held = []
    for backbone in (tower := clip(), alone(tower)):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.nbytes) or t, lambda t: t):
            Prompts(backbone, NAMES * 4, n=16).encode(torch.randn(16, 24).requires_grad_())
        held.append(sum(kept))
    assert held[0] < held[1] / 1.5, f"packed must keep less; got {held[0]} bytes against {held[1]}"
