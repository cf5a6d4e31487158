"""Mixed precision: frozen weights are cast once, the numbers are autocast's own, and all is as before after it."""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import adaptkit as ak
from adaptkit.testing import toy_backbone
from adaptkit.towers import backbone as entry
from tests.test_prompting import siglip

NAMES = ["cat", "great white shark", "sea owl", "fox", "hen", "dog"]


class Casts(TorchDispatchMode):
    """Counts casts of matrices to another type, as large as weights are."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        is_cast = func is torch.ops.aten._to_copy.default and kwargs.get("dtype") in (torch.bfloat16, torch.float16)
        self.count += is_cast and args[0].dim() == 2 and not args[0].requires_grad
        return func(*args, **kwargs)


def answers(backbone, dtype):
    """Embeddings of sentences and images, and a context's gradient, under autocast."""
    torch.manual_seed(0)
    prompts = ak.Prompts(backbone, NAMES[: 6 if backbone.takes_packs else 3], n=3)
    context = torch.randn(3, backbone.width["text"]).requires_grad_()
    side = backbone.model.config.vision_config.image_size
    with torch.autocast("cpu", dtype=dtype):
        out = prompts.encode(context)
        images = backbone.encode_image(torch.randn(2, 3, side, side))
    return [out, images, *torch.autograd.grad(out.float().square().sum(), context)]


@pytest.mark.parametrize("made", [toy_backbone, siglip], ids=["clip", "siglip"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_that_were_cast_before_give_the_same_bits(made, dtype, monkeypatch):
    got = answers(made(), dtype)
    monkeypatch.setattr(entry, "cast_once", lambda slots, device: contextlib.nullcontext())
    for ours, want in zip(got, answers(made(), dtype), strict=True):
        assert ours.dtype == want.dtype and torch.equal(ours, want), "casting once must change no bit"


def test_a_frozen_weight_is_cast_at_the_first_step_only():
    backbone, counts = toy_backbone.__wrapped__("7"), []
    ids = backbone.tokenize(NAMES)
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16), Casts() as casts, torch.no_grad():
            backbone.encode_text(ids)
        counts.append(casts.count)
    assert counts[0] > counts[1] == counts[2], f"later steps must not cast what is frozen; got {counts}"


def test_the_backbone_is_as_before_and_says_its_own_weights_meanwhile():
    backbone, seen = toy_backbone(), []
    digest, weight = backbone.digest(), backbone.weight("text.block.0.q")
    look = {"text.block.0": lambda _, out: seen.append(backbone.weight("text.block.0.q")) or out}
    with torch.autocast("cpu", dtype=torch.bfloat16), backbone.taps(look):
        backbone.encode_text(NAMES)
    assert torch.equal(seen[0], weight) and seen[0].dtype == torch.float32, "a weight in effect is the frozen one"
    assert backbone.digest() == digest, "no cast may be left behind"
    with pytest.raises(ValueError, match="unpack"), torch.autocast("cpu", dtype=torch.bfloat16):
        backbone.encode_image(torch.zeros(1, 3, 7, 7, 7))
    assert backbone.digest() == digest, "not even after an error"


def test_weights_that_others_swap_in_are_theirs_and_get_their_gradients():
    backbone = toy_backbone()
    scale = torch.ones((), requires_grad=True)
    plain = backbone.encode_text(NAMES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = backbone.encode_text(NAMES)
        with backbone.weights({"text.block.0.q": scale * 3 * backbone.weight("text.block.0.q")}):
            out = backbone.encode_text(NAMES)
    (grad,) = torch.autograd.grad(out.float().sum(), scale)
    assert not torch.equal(out, low) and grad != 0, "what is swapped in must act, and learn"
    assert torch.equal(backbone.encode_text(NAMES), plain), "without autocast nothing is cast"


def test_moved_or_changed_weights_are_cast_anew():
    backbone = toy_backbone.__wrapped__("8")
    slot = next(s for name, s in backbone.slots().items() if name == "text.block.0.q.weight")
    slot.cast(torch.bfloat16)
    first = slot.module.weight
    slot.put(slot.get())
    slot.cast(torch.bfloat16)
    assert slot.module.weight is first, "an unchanged weight must be cast once"
    slot.put(slot.get())
    with torch.no_grad():
        slot.get().add_(1)
    slot.cast(torch.bfloat16)
    assert torch.equal(slot.module.weight, (slot.get()).bfloat16()), "a changed weight must be cast anew"
    slot.put(slot.get())


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_prompts_train_in_mixed_precision(precision):
    task, test = ak.load("toy", backbone="toy:0", shots=4, seed=1)
    schedule = ak.Schedule(epochs=2, lr=0.01, batch_size=8)
    learned = []
    for trainer in ({}, {"precision": precision}):
        torch.manual_seed(3)
        learned.append(ak.predict(ak.adapt(ak.method("coop", n=4, schedule=schedule), task, trainer=trainer), test))
    off = (learned[0] - learned[1]).abs().mean()
    assert 0 < off < 0.5, f"mixed precision must learn about what full precision does; got logits {off} apart"
