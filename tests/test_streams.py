"""Orders of test images: permutations, repeatable, and shaped as they say."""

import numpy as np
import pytest

from adaptkit.runs import streams

LABELS = np.arange(300) % 10


def variety(labels):
    """Mean number of classes among 30 images that follow each other."""
    return np.mean([len({*labels[i : i + 30]}) for i in range(0, len(labels), 30)])


@pytest.mark.parametrize("spec", [*streams.STREAMS, {"class-correlated": {"concentration": 1e-3}}], ids=str)
def test_every_image_is_met_once_in_an_order_that_the_seed_decides(spec):
    order = streams.order(spec, LABELS, np.arange(300) // 150)
    assert sorted(order(1)) == list(range(300)), "each image must be met, and once"
    assert (order(1) == order(1)).all(), "a seed must give one order"
    assert (order(1) != order(2)).any(), "another seed must give another"


def test_images_of_a_class_come_together_the_more_the_smaller_the_concentration():
    def met(spec):
        return np.mean([variety(LABELS[streams.order(spec, LABELS)(seed)]) for seed in range(5)])

    low, medium, high = (met({"class-correlated": {"concentration": c}}) for c in (1e-3, 0.3, 1e3))
    assert low < 4 < medium < high, f"of ten classes few must come together; got {low}, {medium}, {high}"
    assert abs(high - met("shuffled")) < 0.5, f"a large concentration must be a shuffle; got {high}"


def test_gradual_fades_from_one_test_set_to_the_next():
    part = np.repeat([0, 1, 2], 100)
    met = part[streams.order("gradual", LABELS, part)(0)]
    first, last = met[:50], met[-50:]
    assert (first == 0).all() and (last == 2).all(), "it must begin with the first set alone and end with the last"
    middle = met[100:200]
    assert {0, 1, 2} >= set(middle) >= {0, 1}, f"sets must overlap; got {set(middle)}"
    means = [np.flatnonzero(met == k).mean() for k in range(3)]
    assert means == sorted(means), f"sets must come in their order; got mean places {means}"
    changes = (np.diff(met) != 0).sum()
    assert changes > 20, f"a set must fade, not end; got {changes} changes"


def test_mixed_is_one_shuffle_of_all_test_sets():
    part = np.repeat([0, 1], 150)
    met = part[streams.order("mixed", LABELS, part)(0)]
    assert 0.35 < met[:100].mean() < 0.65, "both sets must come from the start on"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("sorted", "stream must be one of .*; got 'sorted'"),
        ({"class-correlated": {"gamma": 1}}, "an option of class-correlated must be .*; got 'gamma'"),
        ({"class-correlated": {"concentration": 0}}, "concentration must be a number from 1e-06 to 1,000,000; got 0"),
        ({"class-correlated": {"concentration": "low"}}, "class-correlated.concentration must be a number; got 'low'"),
        ({"shuffled": {"seed": 1}}, "an option of shuffled must be .*; got 'seed'"),
    ],
)
def test_a_stream_that_nobody_knows_is_refused(spec, words):
    with pytest.raises(ValueError, match=words):
        streams.order(spec, LABELS)
