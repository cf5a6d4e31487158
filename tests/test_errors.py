"""What stands behind a number: predictions that are kept, and what is counted, shown and written of them."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score, precision_recall_fscore_support

from adaptkit.report.errors.agreement import agreement
from adaptkit.report.errors.counts import class_scores, confusion_counts, macro_f1, most_confused, reliability
from adaptkit.report.errors.sections import (
    agreement_section,
    answers_sections,
    classes_section,
    confusion_section,
    reliability_section,
)

ODD = ["<script>alert(1)</script>", "a \"quoted\" 'name'", "Käse 🧀 & Brot", "turn\u202earound"]


def drawn(classes, count, seed=0, share=0.6):
    """Labels and answers of which about a share is right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return labels, np.where(rng.random(count) < share, labels, rng.integers(0, classes, count))


def test_counts_are_those_of_scikit_learn():
    labels, told = drawn(7, 500)
    counts = confusion_counts(labels, told, 7)
    assert (counts == confusion_matrix(labels, told)).all(), "true classes must be in rows"
    found = class_scores(counts, [str(c) for c in range(7)])
    for i, name in enumerate(("precision", "recall", "f1")):
        want = precision_recall_fscore_support(labels, told)[i]
        assert np.allclose([getattr(scores, name) for scores in found], want), f"{name} must be that of scikit-learn"
    assert macro_f1(counts) == pytest.approx(f1_score(labels, told, average="macro")), "so must the mean"


def test_a_class_without_images_or_answers_counts_for_nothing():
    counts = confusion_counts([0, 0, -1], [0, 1, 3], 4)
    never, only_answered = class_scores(counts, list("abcd"))[2:0:-1]
    assert (never.f1, never.precision, never.recall) == (None, None, None), "of nothing there is no share"
    assert (only_answered.recall, only_answered.precision) == (None, 0.0), "what was answered in vain was answered"
    assert macro_f1(counts) == pytest.approx(f1_score([0, 0], [0, 1], average="macro", zero_division=0)), "as elsewhere"
    assert macro_f1(confusion_counts([], [], 4)) is None, "nor of no images"


def test_a_number_of_no_class_is_refused():
    with pytest.raises(ValueError, match="answers must be numbers of classes, from 0 to 1; got 2"):
        confusion_counts([0, 1], [2, 1], 2)
    with pytest.raises(ValueError, match="as many; got 2 and 1"):
        confusion_counts([0, 1], [1], 2)


def test_pairs_are_in_the_order_of_their_errors():
    counts = np.array([[5, 3, 0], [1, 9, 0], [0, 2, 0]])
    found = [(p.label, p.predicted, p.count, p.share) for p in most_confused(counts, "abc", 2)]
    assert found == [("a", "b", 3, 3 / 8), ("c", "b", 2, 1.0)], "the diagonal is no error"
    assert most_confused(np.diag([3, 2]), "ab") == [], "and where nothing was confused there is none"


def test_the_calibration_error_is_that_of_the_metric():
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    sure = np.append(np.random.default_rng(3).random(400).astype(np.float32), np.ones(50, np.float32))
    right = np.random.default_rng(4).random(450) < sure
    found = reliability(sure, right)
    want = binary_calibration_error(torch.from_numpy(sure), torch.from_numpy(right).long(), n_bins=15)
    assert found.ece == pytest.approx(float(want), abs=1e-6), "a page must not contradict its table"
    assert found.counts.sum() == 450, "certainty is shown with the last bin"


def test_kappa_is_that_of_scikit_learn():
    labels, one = drawn(5, 300)
    two = drawn(5, 300, seed=1)[1]
    found = agreement({"one": one, "two": two, "same": one}, labels)
    assert found.kappa[0, 1] == pytest.approx(cohen_kappa_score(one, two)), "kappa must be Cohen's"
    assert found.kappa[0, 2] == 1.0, "equal answers agree"
    right = [one == labels, two == labels]
    assert found.both_right[0, 1] == pytest.approx((right[0] & right[1]).mean()), "images that both answer right"
    assert found.one_right[1, 0] == pytest.approx((right[1] & ~right[0]).mean()), "the row's method is the right one"
    assert (found.hard == np.flatnonzero(~right[0] & ~right[1])).all(), "images that nobody answers right"
    constant = agreement({"one": [1, 1], "two": [1, 1]}, [0, 1])
    assert constant.kappa.tolist() == [[1, 1], [1, 1]], "one class alone is agreement, not a division by zero"


def test_names_of_strangers_stay_text_in_sections():
    labels, told = drawn(4, 60)
    shown = confusion_section(labels, told, ODD) + classes_section(labels, told, ODD)
    shown += agreement_section(agreement({"<b>": told, "b": labels}, labels), ["<b>", "b"])
    assert "<script" not in shown and "<b>" not in shown, "a name must not become markup"
    assert "\u202e" not in shown, "nor turn the text around it"
    assert "Käse 🧀 &amp; Brot" in shown, "what can be read is read"


def test_many_classes_are_told_by_pairs():
    labels, told = drawn(1000, 3000)
    names = [f"class {i}" for i in range(1000)]
    shown = confusion_section(labels, told, names)
    assert "matrix" not in shown and shown.count("<tr>") == 21, "a head and twenty pairs; no matrix of a million cells"
    assert len(classes_section(labels, told, names)) < 60_000, "a table of classes must be one that can be read"


def test_sections_of_little_say_so():
    assert "no labelled images" in confusion_section([], [], ["a", "b"]), "no images"
    assert "no labelled images" in classes_section([-1], [0], ["a", "b"]), "no labels"
    assert "no labelled images" in reliability_section([], []), "nothing to trust"
    one = answers_sections([0], np.array([[1.0, 0.0]]), ["a", "b"])
    assert one.count('class="errors"') == 3 and "nan" not in one.lower(), "one image is enough for numbers"
