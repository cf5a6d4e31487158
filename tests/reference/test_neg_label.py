"""NegLabel once more, from the paper (arXiv:2403.20078): which words are mined, and how groups are averaged.

Written by a second hand, which had not read the method.
"""

import json
from itertools import combinations

import numpy as np
import pytest
import torch

from adaptkit import adapt, method, predict
from tests.reference.by_hand import close, unit

NOUNS = ("moon", "river", "spoon", "tower", "brick", "cloud", "shelf", "river bank", "tooth")
ADJECTIVES = ("blue", "steep", "sour", "loud", "wide", "brief")


def embedded(task, sentences):
    with torch.no_grad():
        return unit(task.backbone.encode_text(sentences).double().numpy())


def mined(task, rows, top, percentile):
    """The words whose cosines to the classes are smallest at a percentile, linear between two, as many as fit."""
    nearness = np.quantile(rows @ task.text.double().numpy().T, percentile, axis=1)
    return rows[np.argsort(nearness, kind="stable")[: int(top * len(rows))]]


def negatives(task, top=0.6, percentile=0.95):
    """Words as the paper embeds them, nouns first: nouns in the task's sentences, adjectives in one of their own."""
    templates = [s.replace(task.classnames[0], "{}") for s in task.prompts[0]]
    nouns = np.array([unit(embedded(task, [t.format(n) for t in templates]).mean(0)) for n in NOUNS])
    adjectives = embedded(task, [f"This is a {a} photo." for a in ADJECTIVES])
    return np.concatenate([mined(task, rows, top, percentile) for rows in (nouns, adjectives)])


def score(task, x, rows):
    """The share of the classes among classes and words, ``(N,)``."""
    scale = task.backbone.logit_scale
    inside, outside = (np.exp(scale * (x @ own.T - 1)).sum(1) for own in (task.text.double().numpy(), rows))
    return inside / (inside + outside)


def asked(toy, tmp_path, **options):
    task, queries = toy
    file = tmp_path / "words.json"
    file.write_text(json.dumps({"nouns": NOUNS, "adjectives": ADJECTIVES}))
    model = adapt(method("neg-label", file=str(file), top=0.6, **options), task)
    x = unit(queries.bind(model.needs()).x.double().numpy())
    return task, x, predict(model, queries)


@pytest.mark.parametrize("percentile", [0.5, 0.95])
def test_one_group_is_the_share_of_the_classes_among_all_words(percentile, toy, tmp_path):
    task, x, got = asked(toy, tmp_path, groups=1, percentile=percentile)
    close(got, score(task, x, negatives(task, percentile=percentile)), "neg-label's score")


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
def test_groups_of_one_word_are_averaged_in_any_order(toy, tmp_path):
    task, x, got = asked(toy, tmp_path, groups=100)  # more than there are words
    rows = negatives(task)
    close(got, np.mean([score(task, x, row[None]) for row in rows], axis=0), "neg-label's score")


@pytest.mark.parametrize("as_released", [False, True])
def test_three_groups_are_some_partition_of_the_words(as_released, toy, tmp_path):
    task, x, got = asked(toy, tmp_path, groups=3, as_released=as_released)
    rows = negatives(task)
    kept = range(len(rows) // 3 * 3 if as_released else len(rows))
    assert len(rows) == 8, "five of nine nouns and three of six adjectives"

    def partitions():
        places = set(kept)
        for a in combinations(kept, (len(kept) + 2) // 3):
            rest = sorted(places - set(a))
            for b in combinations(rest, (len(rest) + 1) // 2):
                yield a, b, tuple(sorted(set(rest) - set(b)))

    want = [np.mean([score(task, x, rows[list(part)]) for part in parts], axis=0) for parts in partitions()]
    nearest = min(np.abs(got.numpy() - one).max() for one in want)
    assert nearest < 1e-5, f"the mean must be over three parts of {len(kept)} words; the nearest is {nearest:.2g} away"


def test_as_many_words_and_classes_as_the_paper_has_can_be_mined(toy):
    model = adapt(method("neg-label"), toy[0])
    torch.manual_seed(0)
    model.text, rows = torch.randn(1000, 4), torch.randn(20_000, 4)  # more numbers than torch takes in one quantile
    nearness = np.quantile((rows[:50] @ model.text.T).numpy(), 0.95, axis=1)
    want = nearness.argsort(kind="stable")
    got = model.farthest(rows).numpy()
    assert len(got) == 3000, "a share of 0.15 of all words must be kept"
    few = [place for place in got if place < 50]
    assert few == want[: len(few)].tolist(), "the farthest must come first"


@pytest.mark.parametrize(("text", "words"), [(None, "No such file"), ("{", "Expecting"), ("[]", "lists of words")])
def test_a_file_that_holds_no_words_is_named_in_one_line(text, words, toy, tmp_path):
    if text is not None:
        (tmp_path / "words.json").write_text(text)
    with pytest.raises(ValueError, match=words) as raised:
        adapt(method("neg-label", file=str(tmp_path / "words.json")), toy[0])
    assert "words.json" in str(raised.value) and "\n" not in str(raised.value), "it is named"


def test_words_of_one_kind_are_enough_and_words_that_are_classes_are_refused(toy, tmp_path):
    file = tmp_path / "words.json"
    file.write_text(json.dumps({"adjectives": ADJECTIVES}))
    got = predict(adapt(method("neg-label", file=str(file), top=0.5), toy[0]), toy[1])
    assert got.isfinite().all(), "no nouns are needed"
    file.write_text(json.dumps({"nouns": toy[0].classnames}))
    with pytest.raises(ValueError, match=r"top must leave a word; got 0\.15 of 0 and 0"):
        adapt(method("neg-label", file=str(file)), toy[0])


@pytest.mark.parametrize("groups", [1, 7, 100])
def test_fewer_words_than_groups_are_a_group_each_in_the_release_too(toy, groups):
    task, queries = toy
    made = adapt(method("neg-label", as_released=True, groups=groups), task)
    kept = len(made.negatives)
    assert kept > 0 and kept % min(groups, kept) == 0, f"words are left; got {kept}"
    assert predict(made, queries[:5]).isfinite().all(), "and answer"
