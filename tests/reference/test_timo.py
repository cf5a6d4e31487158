"""TIMO once more, in numpy loops and double precision, from the paper's formulas."""

import itertools

import numpy as np
import pytest
import torch

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def draw(counts=(3, 1, 4), prompts=5, views=3, dim=8, queries=30, seed=0):
    """Sentences of every class, raw support views, labels in no order, queries and their labels."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((len(counts), dim)))
    sentences = [unit(c + 0.6 * rng.standard_normal((prompts, dim))) for c in centres]
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    x = centres[labels][:, None] + 0.6 * rng.standard_normal((len(labels), views, dim))
    x *= rng.uniform(1, 9, (len(labels), views, 1))
    truth = rng.integers(len(counts), size=queries)
    return sentences, x, labels, unit(centres[truth] + 0.7 * rng.standard_normal((queries, dim))), truth


def guided_text(sentences, x, labels, gamma):
    """Each class's text, its sentences weighted by softmax of gamma times their normalised match; and the matches."""
    text, matches = [], []
    for c, rows in enumerate(sentences):
        images = [unit(views.mean(0)) for views, label in zip(x, labels, strict=True) if label == c]
        match = np.array([row @ unit(np.mean(images, 0)) for row in rows])
        weights = np.exp(gamma * match / np.linalg.norm(match))
        text.append(unit(sum(w * row for w, row in zip(weights / weights.sum(), rows, strict=True))))
        matches.append(match)
    return np.array(text), matches


def discriminant(sentences, matches, x, labels, count, queries):
    """Log-posterior under the Gaussians of GDA, the `count` best-matching sentences of a class among its samples."""
    samples, owners = [], []
    for views, label in zip(x, labels, strict=True):
        for view in views:
            samples.append(unit(view))
            owners.append(label)
    for c, (rows, match) in enumerate(zip(sentences, matches, strict=True)):
        order = list(np.argsort(-match))
        for p in (order + order)[:count]:
            samples.append(match[p] * rows[p])
            owners.append(c)
    samples, owners = np.array(samples), np.array(owners)
    means = np.array([samples[owners == c].mean(0) for c in range(len(sentences))])
    centred, d = samples - means[owners], samples.shape[1]
    s = centred.T @ centred / (len(samples) - 1)
    precision = d * np.linalg.pinv((len(samples) - 1) * s + np.trace(s) * np.eye(d))
    return np.array([[q @ precision @ m - 0.5 * m @ precision @ m for m in means] for q in queries])


def shifted(logits):
    """What every class has in common does not matter."""
    return logits - logits.mean(1, keepdims=True)


@pytest.mark.parametrize(("beta", "count"), [(0.0, 1), (0.5, 5), (1.0, 10), (0.8, 8)])
def test_timo_is_the_papers_formula(beta, count):
    sentences, x, labels, queries, _ = draw()
    text, matches = guided_text(sentences, x, labels, 30.0)
    want = 7.0 * queries @ text.T + discriminant(sentences, matches, x, labels, count, queries)
    task = Task.from_arrays((x, labels), sentences, logit_scale=50.0)
    got = predict(adapt(method("timo", alpha=7.0, beta=beta, gamma=30.0), task), queries).numpy()
    off = np.abs(shifted(got) - 0.5 * shifted(want)).max()
    assert off < 1e-3 * np.abs(want).max(), f"logits are off by {off:.2g}"


def test_timo_chooses_alpha_and_timo_s_also_gamma_and_the_number_of_sentences():
    sentences, x, labels, queries, truth = draw(seed=3)

    def right(logits):
        return int((logits.argmax(1) == truth).sum())

    def search(gamma, counts):
        text, matches = guided_text(sentences, x, labels, gamma)
        best = (-1,)
        for count, i in itertools.product(counts, range(-4, 5)):
            logits = 10.0**i * queries @ text.T + discriminant(sentences, matches, x, labels, count, queries)
            if right(logits) > best[0]:
                best = right(logits), count, 10.0**i
        return best

    task = Task.from_arrays((x, labels), sentences, val=(queries, truth))
    timo = adapt(method("timo"), task)
    assert timo.alpha == pytest.approx(search(50.0, [5])[2]), "alpha must be the first that does best"

    gamma = max(range(5, 101, 5), key=lambda g: right(queries @ guided_text(sentences, x, labels, g)[0].T))
    _, count, alpha = search(gamma, [int(1 + 9 * i / 9) for i in range(10)])
    timo = adapt(method("timo-s"), task)
    got = timo.gamma, int(1 + timo.beta * 9 + 1e-6), timo.alpha
    assert got == (gamma, count, pytest.approx(alpha)), f"timo-s must choose {(gamma, count, alpha)}; got {got}"
    again = adapt(
        method("timo", gamma=timo.gamma, beta=timo.beta, alpha=timo.alpha), Task.from_arrays((x, labels), sentences)
    )
    assert torch.allclose(predict(again, queries), predict(timo, queries)), "the search must leave its choice in place"


def test_sentences_that_not_every_class_has_are_left_out():
    sentences, x, labels, queries, _ = draw()
    more = [np.concatenate([rows, -rows[:1]]) if c else rows for c, rows in enumerate(sentences)]
    one, two = (predict(adapt(method("timo"), Task.from_arrays((x, labels), s)), queries) for s in (sentences, more))
    assert torch.allclose(one, two, atol=1e-3), "the sixth sentence of two classes must not matter"


def test_a_class_without_images_is_named():
    sentences, x, labels, _, _ = draw((3, 0, 4))
    with pytest.raises(ValueError, match="got none of class 1"):
        adapt(method("timo"), Task.from_arrays((x, labels), sentences))
