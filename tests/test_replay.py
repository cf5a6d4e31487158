"""Streams that are answered in blocks: what each image met in the caches, and that the blocks' sizes do not matter."""

import copy

import pytest
import torch

from adaptkit import Method, Task, adapt, method, predict
from adaptkit.features.items import Images
from adaptkit.methods.class_cache import ClassCache
from adaptkit.methods.class_scatters import ClassScatters

CLASSES, DIM, SLOTS = 4, 6, 3
TIES = torch.tensor([0.5, 0.25, 0.125, torch.inf])


def drawn(count, seed=0):
    """Labels, entropies with ties and some that are infinite, and embeddings of a stream."""
    generator = torch.Generator().manual_seed(seed)
    labels, ranks = (torch.randint(CLASSES, (count,), generator=generator) for _ in range(2))
    return labels, TIES[ranks], torch.randn(count, DIM, generator=generator)


def by_lists(labels, entropy, slots):
    """The numbers of the images that each image met, class by class, the surest first."""
    held, met = [[] for _ in range(CLASSES)], []
    for i, (label, h) in enumerate(zip(labels.tolist(), entropy.tolist(), strict=True)):
        if h < torch.inf:
            held[label] = sorted([*held[label], (h, i)])[:slots]
        met.append({j for row in held for _, j in row})
    return met, [[j for _, j in row] for row in held]


@pytest.mark.parametrize("slots", [0, 1, SLOTS])
@pytest.mark.parametrize("block", [1, 5, 60])
def test_a_cache_holds_what_lists_would_at_every_image(slots, block):
    labels, entropy, x = drawn(60)
    cache, met = ClassCache(torch.zeros(CLASSES, DIM), slots, marks=1), []
    for rows in torch.arange(60).split(block):
        parts = cache.admit(labels[rows], entropy[rows], x[rows], rows[:, None])
        for i in range(len(rows)):
            meeting = [(part, part.met(len(rows))[:, i]) for part in parts]
            met.append({int(j) for part, m in meeting for j in part.marks[m, 0]})
            for part, m in meeting:
                ids = part.marks[m, 0].long()
                assert torch.equal(part.keys[m], x[ids]), "an entry must have the key of its image"
                assert torch.equal(part.label[m], labels[ids]), "and its class"
                assert torch.equal(part.entropy[m], entropy[ids]), "and its entropy"
    want, left = by_lists(labels, entropy, slots)
    assert met == want, "each image must meet what was held when it entered, itself among them"
    assert [row[held].tolist() for row, held in zip(cache.marks[..., 0], cache.held, strict=True)] == left, (
        "the cache must be left as one by one, the surest first and the older first among equals"
    )


def test_affinity_is_nothing_where_image_and_key_did_not_meet():
    labels, entropy, x = drawn(40)
    parts = ClassCache(torch.zeros(CLASSES, DIM), SLOTS).admit(labels, entropy, x)
    for part in parts:
        want = (0.7 * (part.keys @ x.T - 1)).exp() * part.met(len(x))
        torch.testing.assert_close(part.affinity(x, 0.7), want, msg="affinity must be exp(-beta (1 - x k))")
    assert len(parts) == 2 and not parts[1].met(len(x)).all(1).any(), "some must have been held for a while only"


def stream(count, views, seed=1):
    """A task of class embeddings with shots, and unit-norm views of images that often repeat."""
    generator = torch.Generator().manual_seed(seed)
    text, labels = torch.randn(CLASSES, 16, generator=generator), torch.arange(2 * CLASSES) % CLASSES
    shots = text[labels] + torch.randn(len(labels), 16, generator=generator)
    of = torch.randint(CLASSES, (count // 2,), generator=generator).repeat(2)  # every image twice
    x = text[of, None] + 1.5 * torch.randn(count // 2, views, 16, generator=generator).repeat(2, 1, 1)
    return Task.from_arrays((shots, labels), text, logit_scale=10.0), x


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tda", {"capacity": 2, "negative_capacity": 1, "window": (0.05, 0.9), "mask": (0.01, 0.9)}),
        ("tda", {"capacity": 0, "keep": 0.5}),
        ("boost-adapter", {"capacity": 1, "delta": 2, "keep": 1.0, "average": True, "window": (0.05, 0.9)}),
        ("boost-adapter", {"delta": 0, "keep": 0.5, "as_released": True, "window": (0.05, 0.9)}),
        ("boost-adapter", {"capacity": 0}),
        ("dmn", {"capacity": 2, "keep": 0.5}),
        ("dmn", {"capacity": 5, "shots": False}),
        ("x-more", {"as_released": True}),
        ("dota", {"keep": 0.5, "eta": 0.9, "rho": 0.2}),
        ("dota", {"sigma": 0.3, "eps": 0.1, "keep": 1.0}),
    ],
)
def test_blocks_of_any_size_are_answered_as_one_by_one(name, options):
    task, views = stream(90, views=1 if name == "x-more" else 6)
    fitted = adapt(method(name, **options), task)
    one_by_one = Method.replay(copy.deepcopy(fitted), Images.from_arrays(views).bind(fitted.needs()))
    scale = one_by_one.abs().max()
    for size in (1, 7, 1024):
        off = (predict(fitted, views, batch_size=size) - one_by_one).abs().max() / scale
        assert off < 1e-5, f"in blocks of {size} answers are off by {off:.2g} of the largest"
    prefix = predict(fitted, views[:31])
    assert (prefix - one_by_one[:31]).abs().max() < 1e-5 * scale, "what comes later must change nothing"


def test_a_stream_without_a_replay_is_answered_one_by_one():
    task, views = stream(10, views=1)
    fitted = adapt(method("onzeta", n=10), task)
    rows, one = Images.from_arrays(views).bind(fitted.needs()), copy.deepcopy(fitted)
    want = torch.cat([one(rows[i : i + 1]) for i in range(len(rows))])
    assert torch.equal(predict(fitted, views), want), "the default replay must ask forward for each image"


def test_an_image_may_have_more_views_than_rows_wait_in_a_class_matrix():
    task, views = stream(20, views=50)
    fitted = adapt(method("dota", views=50, keep=0.9), task)
    one_by_one = Method.replay(copy.deepcopy(fitted), Images.from_arrays(views).bind(fitted.needs()))
    off = (predict(fitted, views) - one_by_one).abs().max() / one_by_one.abs().max()
    assert off < 1e-5, f"answers are off by {off:.2g} of the largest"


def test_classes_matrices_are_read_and_written_once_for_many_images(monkeypatch):
    made, whole = [], ClassScatters.write
    monkeypatch.setattr(ClassScatters, "write", lambda self: (made.append(len(self.rows)), whole(self)))
    task, views = stream(96, views=1)
    fitted = adapt(method("dota"), task)
    rows = Images.from_arrays(views).bind(fitted.needs())
    Method.replay(copy.deepcopy(fitted), rows)
    assert made == [32, 32], f"96 images that come one by one must be written twice so far; got {made}"
    one, block = copy.deepcopy(fitted), copy.deepcopy(fitted)
    Method.replay(one, rows), block.replay(rows)
    for name in ("means", "counts", "covariances"):
        got, want = getattr(block.held, name), getattr(one.held, name)
        torch.testing.assert_close(got, want, msg=f"{name} must be left as one by one")
