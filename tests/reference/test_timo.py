"""TIMO and TIMO-S once more, in numpy loops, from the paper (arXiv:2412.11375)."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, softmax, unit

SCALE, ALPHAS, GAMMAS = 60.0, [10.0**i for i in range(-4, 5)], range(5, 101, 5)


def draw(seed=0, classes=4, sentences=(7, 5, 6, 5), shots=(3, 1, 2, 4), views=3, dim=9, wobble=0.9):
    """Raw embeddings, whose norms differ: sentences per class, support views, labels, validation images."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((classes, dim))
    text = [c + wobble * rng.standard_normal((t, dim)) for c, t in zip(centre, sentences, strict=True)]
    y = rng.permutation(np.repeat(np.arange(classes), shots))
    x = centre[y][:, None] + 0.7 * rng.standard_normal((len(y), views, dim))
    x *= rng.uniform(0.5, 2, x.shape[:2])[..., None]
    val_y = rng.integers(classes, size=40)
    return text, x, y, unit(centre[val_y] + 1.5 * rng.standard_normal((40, dim))), val_y


def image_guided_text(text, x, y, gamma):
    """Class weights, and the sentences of each class by their match to its images, with that match."""
    p = min(len(t) for t in text)
    weights, ranked = [], []
    for c, raw in enumerate(text):
        t = unit(raw[:p])
        prototype = unit(np.mean([unit(image.mean(0)) for image in x[y == c]], axis=0))
        match = np.array([sentence @ prototype for sentence in t])
        share = softmax(gamma * match / np.linalg.norm(match))
        weights.append(unit(sum(s * sentence for s, sentence in zip(share, t, strict=True))))
        ranked.append([(match[i], t[i]) for i in np.argsort(-match)])
    return np.array(weights), ranked


def text_guided_gaussians(ranked, x, y, count, queries):
    """Discriminants of Gaussians with one covariance, on all views and the `count` best sentences a class."""
    classes, dim = len(ranked), x.shape[-1]
    rows = [[unit(view) for image in x[y == c] for view in image] for c in range(classes)]
    for c in range(classes):
        rows[c] += [match * t for match, t in (ranked[c] * 2)[:count]]
    means = [np.mean(r, axis=0) for r in rows]
    n = sum(len(r) for r in rows)
    s = sum(np.outer(row - means[c], row - means[c]) for c in range(classes) for row in rows[c]) / (n - 1)
    precision = dim * np.linalg.inv((n - 1) * s + np.trace(s) * np.eye(dim))
    return np.array([[q @ precision @ m - m @ precision @ m / 2 for m in means] for q in queries])  # equal priors


def timo(text, x, y, queries, alphas, count, gamma):
    """Logits of the paper, alpha cosine + log-posterior, for a logit scale of 100; others by proportion."""
    weights, ranked = image_guided_text(text, x, y, gamma)
    gaussians = text_guided_gaussians(ranked, x, y, count, queries)
    return [SCALE / 100 * (alpha * queries @ weights.T + gaussians) for alpha in alphas]


def adapted(name, text, x, y, val=None, **options):
    return adapt(method(name, **options), Task.from_arrays((x, y), text, val=val, logit_scale=SCALE))


@pytest.mark.parametrize(("beta", "count"), [(0.5, 5), (0.0, 1), (1.0, 10), (1 / 3, 4)])
def test_timo_is_the_papers(beta, count):
    text, x, y, queries, _ = draw()
    got = predict(adapted("timo", text, x, y, alpha=30.0, beta=beta, gamma=12.0), queries)
    close(got, timo(text, x, y, queries, [30.0], count, 12.0)[0], "timo's logits")


def right(logits, y):
    return int((logits.argmax(-1) == y).sum())


def test_timo_chooses_alpha_on_validation_images():
    text, x, y, val, val_y = draw(1, wobble=1.5)
    scores = [right(logits, val_y) for logits in timo(text, x, y, val, ALPHAS, 5, 50.0)]
    assert len(set(scores)) > 2, f"the draw must tell the alphas apart; got {scores}"
    got = adapted("timo", text, x, y, (val, val_y))
    assert [*got.grid()["alpha"]] == pytest.approx(ALPHAS), "the released grid"
    assert got.alpha == pytest.approx(ALPHAS[int(np.argmax(scores))]), f"alpha is {got.alpha}; scores {scores}"


def test_timo_s_chooses_gamma_by_the_text_alone_and_then_sentences_with_alpha():
    text, x, y, val, val_y = draw(3, wobble=1.5)
    by_gamma = [right(val @ image_guided_text(text, x, y, g)[0].T, val_y) for g in GAMMAS]
    gamma = GAMMAS[int(np.argmax(by_gamma))]
    cells = [(b, alpha) for b in range(10) for alpha in ALPHAS]  # b + 1 of five sentences, each twice
    logits = [answer for b in range(10) for answer in timo(text, x, y, val, ALPHAS, b + 1, gamma)]
    best = int(np.argmax([right(answer, val_y) for answer in logits]))
    b, alpha = cells[best]
    assert len(set(by_gamma)) > 1 and b, f"the draw must tell cells apart; got gammas {by_gamma}, cell {b, alpha}"
    got = adapted("timo-s", text, x, y, (val, val_y))
    found = got.gamma, got.beta, got.alpha
    assert found == pytest.approx((gamma, b / 9, alpha)), f"gamma, beta, alpha are {found}; {gamma, b / 9, alpha}"
    close(predict(got, val), logits[best], "timo-s's logits")


def test_a_class_without_images_is_named():
    text, x, y, _, _ = draw(shots=(3, 0, 2, 4))
    with pytest.raises(ValueError, match="got none of class 1"):
        adapted("timo", text, x, y)
