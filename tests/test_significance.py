"""Whether two methods differ: each test against a slow one, and against data in which they do not."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, wilcoxon

from adaptkit.report.significance import (
    LEVEL,
    OverDatasets,
    OverImages,
    agreeing,
    decidable,
    holm,
    holm_steps,
    sign_flip,
    verdicts,
)


def answers(share, images=200, seeds=3, *, rng, hard=None):
    """Right answers of a method, ``(seeds, N)``: the same images are hard on every seed."""
    hard = rng.random(images) if hard is None else hard
    return hard + 0.1 * rng.standard_normal((seeds, images)) < share


@pytest.mark.parametrize("images", [1, 7, 40, 900])
def test_on_one_seed_the_test_is_mcnemars(images):
    rng = np.random.default_rng(images)
    one, two = (rng.random((1, images)) < share for share in (0.6, 0.5))
    lone, other = int((one & ~two).sum()), int((two & ~one).sum())
    expected = binomtest(lone, lone + other).pvalue if lone + other else 1.0
    assert OverImages([(one, two)]).p() == pytest.approx(expected, rel=1e-6), (
        "p must be that of the exact binomial test"
    )


def test_on_several_seeds_every_pattern_of_signs_is_counted():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.integers(-3, 4, 9)
        sums = np.array(list(product([-1, 1], repeat=9))) @ np.abs(values)
        assert sign_flip(values) == pytest.approx((abs(sums) >= abs(values.sum())).mean()), f"of {values}"


def test_an_image_that_three_seeds_answered_is_one_image():
    rng = np.random.default_rng(1)
    one, two = (answers(share, seeds=1, rng=rng) for share in (0.55, 0.5))
    thrice = OverImages([(one.repeat(3, 0), two.repeat(3, 0))])
    assert thrice.p() == pytest.approx(OverImages([(one, two)]).p()), "the same answers three times prove no more"
    assert thrice.verdict("two", 1.0) == OverImages([(one, two)]).verdict("two", 1.0), "nor is the interval narrower"


def test_methods_that_do_not_differ_are_rarely_told_apart():
    rng, found, laid_out = np.random.default_rng(2), 0, 0
    for _ in range(400):  # as good as each other on other images, each with images of its own that it finds hard
        one, two = (answers(0.5, 100, rng=rng) for _ in range(2))
        found += OverImages([(one, two)]).p() < 0.05
        laid_out += OverImages([(one.reshape(1, -1), two.reshape(1, -1))]).p() < 0.05
    assert found <= 400 * 0.07, f"5 % of tests may be wrong; got {found} of 400"
    assert laid_out > 400 * 0.15, "seeds laid end to end as if they were images would be wrong far more often"


def test_methods_that_differ_are_told_apart():
    rng = np.random.default_rng(3)
    hard = rng.random(400)
    one, two = (answers(share, 400, rng=rng, hard=hard) for share in (0.6, 0.5))
    verdict = OverImages([(one, two)]).verdict("two", OverImages([(one, two)]).p())
    assert verdict.differs and verdict.difference == pytest.approx(one.mean() - two.mean()), "ten points, 400 images"
    assert verdict.interval[0] < 0.1 < verdict.interval[1], "the interval must hold what is true"


@pytest.mark.parametrize("tests", [1, 2])
def test_an_interval_is_as_wide_as_resampling_images_makes_it(tests):
    rng = np.random.default_rng(4)
    sides = [tuple(answers(share, 300, rng=rng) for share in (0.6, 0.4)) for _ in range(tests)]
    draws = []
    for _ in range(4000):
        means = []
        for one, two in sides:
            rows = rng.integers(0, 300, 300)
            means.append((one[:, rows].mean(), two[:, rows].mean()))
        ours, theirs = (tests / sum(1 / pair[i] for pair in means) for i in (0, 1))
        draws.append(ours - theirs)
    verdict = OverImages(sides).verdict("two", OverImages(sides).p())
    low, high = verdict.interval
    assert high - low == pytest.approx(2 * 1.96 * np.std(draws), rel=0.06), "every image keeps its answers on all seeds"
    assert (low + high) / 2 == pytest.approx(verdict.difference), "around the difference"


def test_harmonic_means_that_are_equal_have_no_p_below_one():
    one = np.ones((2, 10), bool)
    assert OverImages([(one, one), (one, one)]).p() == 1.0, "no difference"
    assert OverImages([(one, ~one), (one, ~one)]).p() == 0.0, "every image, and no spread"


def test_over_datasets_ranks_decide_and_few_datasets_cannot():
    gaps = [0.01, 0.02, 0.03, 0.04, 0.05, -0.005, 0.06]
    assert OverDatasets(gaps).p() == pytest.approx(wilcoxon(gaps).pvalue), "Wilcoxon's"
    assert OverDatasets([0.0] * 7).p() == 1.0, "no difference"
    assert not decidable(5, 1) and decidable(6, 1), "below six datasets no p is below 5 %"
    assert not decidable(11, 55) and decidable(11, 45), "nor below eleven for all pairs of eleven methods"


def test_holm_is_as_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02]), "4, 3, 2 and 1 times, rising"
    assert holm([0.6, 0.5]) == [1.0, 1.0], "and never above one"
    assert holm([]) == [], "none of none"


def test_the_best_of_many_must_beat_a_correction_for_all_pairs():
    rng = np.random.default_rng(5)
    hard = rng.random(300)
    right = {
        m: answers(share, 300, rng=rng, hard=hard) for m, share in {"a": 0.5, "b": 0.54, "c": 0.55, "d": 0.56}.items()
    }

    def pair(one, two):
        return OverImages([(right[one], right[two])])

    named, best = (verdicts(pair, list(right), "d", chosen=chosen) for chosen in (False, True))
    raw = {m: pair(m, "d").p() for m in "abc"}
    assert list(named) == list(best) == ["a", "b", "c"], "one verdict for each but the reference"
    assert named["a"].p == pytest.approx(3 * raw["a"], abs=0), "three comparisons, if the reference was named before"
    assert best["a"].p == pytest.approx(6 * raw["a"], abs=0), "six, if the data chose it"
    assert all(best[m].p >= named[m].p for m in named), "which is never less strict"
    assert all(v.difference < 0 and v.reference == "d" for v in best.values()), "differences are to the reference"
    assert verdicts(lambda one, two: None, list(right), "d", chosen=True) == {}, "without evidence there is no verdict"


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 3),
    st.lists(st.floats(0, 1), min_size=2, max_size=6),
    st.integers(1, 2),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_an_interval_leaves_out_zero_exactly_where_p_is_below_the_level(
    images, seeds, shares, sets, graded, chosen, key
):
    rng = np.random.default_rng(key)
    right = {}
    for i, share in enumerate(shares):
        drawn = [rng.random((seeds, images)) for _ in range(sets)]
        right[f"m{i}"] = [d + share if graded else d < share for d in drawn]

    def pair(one, two):
        return OverImages([*zip(right[one], right[two], strict=True)])

    raw = {m: pair(m, "m0").p() for m in right}
    for m, found in verdicts(pair, [*right], "m0", chosen=chosen).items():
        assert found.p >= raw[m] * (1 - 1e-12), "a correction never helps"
        if found.interval is None:
            assert images == 1, "only one image has no spread"
            continue
        low, high = found.interval
        assert low <= found.difference <= high, "what was found lies inside"
        assert (low > 0 or high < 0) == found.differs, f"[{low}, {high}] beside p = {found.p}"


def test_an_interval_is_widened_as_its_p_is_corrected():
    plain, corrected = agreeing(0.2, 0.05, 0.0001, 1), agreeing(0.2, 0.05, 0.001, 10)
    assert plain == pytest.approx((0.2 - 1.959964 * 0.05, 0.2 + 1.959964 * 0.05)), "95 %, where nothing is corrected"
    assert corrected == pytest.approx((0.2 - 2.807034 * 0.05, 0.2 + 2.807034 * 0.05)), "99.5 % for ten times the p"
    assert agreeing(0.1, 0.04, 0.06, 1)[0] < 0 < agreeing(0.1, 0.06, 0.04, 1)[0], "where the exact p decides otherwise"
    assert agreeing(0.0, 0.0, 1.0, 3) == (0.0, 0.0), "no difference at all"
    assert holm_steps([0.01, 0.04, 0.0]) == [(0.02, 2.0), (0.04, 1.0), (0.0, 3.0)], "how many times each was taken"
    assert LEVEL == 0.05, "of which 95 % is the rest"
