"""BayesTTA once more, in numpy loops, from the paper (arXiv:2507.08607), and the test that it makes once."""

import sys

import numpy as np
import pytest
import torch

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, softmax, texts_and_images, unit


def bayes_tta(text, x, scale, own, epsilon, sigma):
    """Logits of images one by one: a soft step of expectation and maximisation for each, then discriminants."""
    classes, dim = text.shape
    means, counts, scatters, out = text.copy(), np.ones(classes), np.zeros((classes, dim, dim)), []
    for n, row in enumerate(x, 1):
        logits = scale * row @ text.T
        p = softmax(logits)
        for c in range(classes):
            away = row - means[c]
            scatters[c] += p[c] * np.outer(away, away)
            means[c] = (counts[c] * means[c] + p[c] * row) / (counts[c] + p[c])
        counts += p
        for c in range(classes):
            s = scatters[c] / (counts[c] - 1) if own else scatters.sum(0) / n
            s = (1 - epsilon) * s + epsilon * sigma**2 * np.eye(dim)
            away = row - means[c]
            density = away @ np.linalg.inv(s) @ away + np.linalg.slogdet(s)[1]
            logits[c] += scale / 100 * (-0.5 * density - np.log(classes))
        out.append(logits)
    return np.array(out)


@pytest.mark.parametrize("covariance", ["shared", "own"])
def test_bayes_tta_is_the_papers(covariance):
    text, x, _ = texts_and_images(classes=3, n=20)
    task = Task.from_arrays((x[:0], []), text, logit_scale=10.0)
    got = predict(adapt(method("bayes-tta", covariance=covariance, epsilon=0.1), task), x)
    want = bayes_tta(text, x, 10.0, covariance == "own", 0.1, 0.1)
    close(got, want, "bayes-tta's logits", 1e-3)


def one_will_do(widths, count=400):
    """What the test says of images of two classes that are spread so wide."""
    rng = np.random.default_rng(0)
    y = np.arange(count) % 2
    x = np.array([[1.0], [-1.0]])[y] + np.array(widths)[y][:, None] * rng.standard_normal((count, 12))
    alike = sys.modules[type(method("bayes-tta")).__module__].alike
    return alike(torch.as_tensor(x), torch.as_tensor(np.eye(2)[y]), 0.05)


def test_covariances_are_shared_unless_classes_differ_in_them():
    assert one_will_do((0.5, 0.5)), "one covariance must do for classes of one width"
    assert not one_will_do((0.3, 0.6)), "classes of other widths must have their own"
    assert one_will_do((0.3, 0.6), count=16), "too few images must leave one covariance"


def test_what_came_before_the_decision_counts_after_it():
    rng = np.random.default_rng(0)
    text, y = unit(rng.standard_normal((2, 12))), np.arange(200) % 2
    x = unit(text[y] + np.array([0.02, 0.2])[y][:, None] * rng.standard_normal((200, 12)))
    task = Task.from_arrays((x[:0], []), text)
    late, own = (adapt(method("bayes-tta", first=150, covariance=kind), task) for kind in ("tested", "own"))
    for row in torch.as_tensor(x).float():
        late.answer(row[None]), own.answer(row[None])
    assert late.decided and not len(late.seen), "images must be let go once the test is made"
    assert torch.allclose(late.scatters, own.scatters), "scatters must be as if they had been apart before"
