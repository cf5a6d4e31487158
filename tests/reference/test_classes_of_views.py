"""The class that several views of an image name: of the best mean logit, or of the best mean probability."""

import pytest
import torch

from adaptkit import Images, Task, adapt, method

SCALE = 20.0
LOGITS = torch.tensor([[5.0, 0.0, 0.0], [-10.0, 1.0, 0.6]])  # of two views: logits of a mean of 1, probability of 0


@pytest.fixture
def views():
    inside = LOGITS / SCALE
    return torch.cat([inside, (1 - inside.square().sum(-1, keepdim=True)).sqrt()], 1)[None]  # (1, V, D), unit-norm


def fitted(name, **options):
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    return adapt(
        method(name, views=2, keep=1.0, **options), Task.from_arrays(nothing, torch.eye(4)[:3], logit_scale=SCALE)
    )


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
@pytest.mark.parametrize(
    ("name", "cache", "options", "by"),
    [
        ("dpe", "cache", {}, "logits"),
        ("tda", "positive", {}, "logits"),
        ("boost-adapter", "positive", {"average": True}, "logits"),
        ("dmn", "memory", {}, "probability"),
    ],
)
def test_an_image_is_kept_under_the_class_that_the_release_picks(name, cache, options, by, views):
    p = LOGITS.softmax(-1).mean(0)
    assert (int(LOGITS.mean(0).argmax()), int(p.argmax())) == (1, 0), "the views must tell the two rules apart"
    streaming, want = fitted(name, **options), {"logits": 1, "probability": 0}[by]
    streaming(Images.from_arrays(views))
    held = getattr(streaming, cache).held.any(1).nonzero().flatten().tolist()
    assert held == [want], f"{name} must go by the best mean {by}, class {want}; got {held}"
    got, want = float(getattr(streaming, cache).entropy[want, 0]), float(-(p * p.log()).sum())
    assert got == pytest.approx(want, rel=1e-5), f"and rank by the entropy of the mean probability, {want}; got {got}"
