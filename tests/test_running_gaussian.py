"""OGA's running Gaussian: the distances of a precision that is solved anew for each image, without solving it."""

import copy

import pytest
import torch

from adaptkit import Method, Task, adapt, method, predict, unit
from adaptkit.features.items import Images
from adaptkit.methods.gaussian_state import solved
from adaptkit.methods.running_gaussian import RunningGaussian

OPTIONS = [
    {},
    {"as_released": True},
    {"unit_means": True},
    {"least": 1, "capacity": 3},
    {"as_released": True, "least": 4},
]


def drawn(count, dim, classes=6, distinct=0, seed=0):
    """A task of class embeddings, and a stream around them, perhaps of few images that come again and again."""
    draw = torch.Generator().manual_seed(seed)
    text = unit(torch.randn(classes, dim, generator=draw))
    x = unit(text[torch.arange(count) % classes] + 0.5 * torch.randn(count, dim, generator=draw) + 0.3)
    x = x[torch.randint(distinct, (count,), generator=draw)] if distinct else x
    return Task.from_arrays((x[:0], []), text, logit_scale=15.0), x


def plain(model, x):
    """Squared distances by what the memory holds, nothing remembered but the last precision."""
    text, far, precision = model.text.double(), [], None
    for row in x:
        model(Images.from_arrays(row[None]).bind(model.needs()))
        cache, off, means, count = model.cache, [], text.clone(), model.cache.held.sum(1)
        for c, held in enumerate(cache.held):
            keys = cache.keys[c][held].double()
            if len(keys) >= model.least:
                mean = keys.sum(0) / (model.capacity if model.as_released else len(keys))
                means[c] = unit(mean) if model.unit_means else mean
            off.append(keys - means[c])
        off = torch.cat(off)
        scatter, drift, n, dim = off.T @ off, off.sum(0), len(off), len(row)
        if count.max() > 2 and scatter.trace() - drift @ drift / n > 1e-9:
            precision = solved(scatter, drift, n, "ridge" if n <= 4 * dim else "plain")
        elif precision is None:
            precision = solved(scatter, drift, n, "round")
        away = row.double() - means
        far.append((away @ precision * away).sum(1))
    return torch.stack(far)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("distinct", [0, 7], ids=["distinct", "again and again"])
@pytest.mark.parametrize("dim", [5, 24])
def test_distances_are_those_of_a_precision_solved_for_each_image(options, distinct, dim):
    task, x = drawn(100, dim, distinct=distinct)
    fitted = adapt(method("oga", tau=1.0, **options), task)
    want = plain(copy.deepcopy(fitted), x)
    zero_shot = fitted.zero_shot(x)
    for size in (1, 7, 1024):
        got = -2 * (predict(fitted, x, batch_size=size) - zero_shot)
        off = float(((got - want).abs().amax(1) / want.abs().amax(1)).max())
        assert off < 1e-4, f"distances in blocks of {size} are off by {off:.2g} of the image's largest"


def test_a_long_stream_drifts_from_nothing():
    task, x = drawn(4000, 16, classes=12)
    model = adapt(method("oga"), task)
    stream = Images.from_arrays(x).bind(model.needs())
    model.replay(stream)
    gaussian, row = model.gaussian, x[:1].double()
    away = row - gaussian.means
    keys, held = model.cache.keys.double(), model.cache.held
    off = (keys - gaussian.means[:, None])[held]
    want = (away @ solved(off.T @ off, off.sum(0), len(off), "plain") * away).sum(1)
    got = gaussian.advance(row, None, [0])[0]
    assert gaussian.kind == "plain" and gaussian.folded > 200, "the reference must have been moved, not made anew"
    torch.testing.assert_close(got, want, rtol=1e-8, atol=0, msg="4000 images must leave no error behind")


def test_matrices_are_inverted_now_and_then_and_not_for_each_image(monkeypatch):
    made, whole = [], RunningGaussian.renew
    monkeypatch.setattr(RunningGaussian, "renew", lambda self, *given: (made.append(given[0]), whole(self, *given)))
    task, x = drawn(1200, 32, classes=30)
    predict(adapt(method("oga"), task), x)
    assert 1 <= len(made) < 30, f"a stream of 1200 images must renew its reference rarely; got {len(made)} times"


def test_one_by_one_leaves_the_state_that_a_block_leaves():
    task, x = drawn(90, 12)
    fitted = adapt(method("oga"), task)
    rows = Images.from_arrays(x).bind(fitted.needs())
    one, block = copy.deepcopy(fitted), copy.deepcopy(fitted)
    Method.replay(one, rows), block.replay(rows)
    for name, want in one.state_dict().items():
        got = block.state_dict()[name]
        if name.split(".")[-1] in ("means", "scatter", "drift", "keys", "entropy"):
            torch.testing.assert_close(got, want, msg=f"{name} must be left as one by one")
    torch.testing.assert_close(block.gaussian.precision, one.gaussian.precision, msg="and so must the precision")
