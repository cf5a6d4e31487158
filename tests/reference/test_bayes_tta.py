"""BayesTTA once more, in numpy loops, from the paper (arXiv:2507.08607), with the test of Box, 1949.

Written by a second hand, which had not read the method.
"""

import numpy as np
import pytest
from scipy.stats import chi2

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import centred, close, softmax, unit

SCALE, AXES = 30.0, 10


def differ(x, p, level):
    """Box's test on ten principal components: whether one covariance will not do."""
    z = x - x.mean(0)
    z = z @ np.linalg.svd(z, full_matrices=False)[2][:AXES].T
    mass = p.sum(0)
    if len(mass) < 2 or mass.min() <= AXES + 1:  # too few images of a class for a covariance of ten axes
        return False
    own = []
    for share, n in zip(p.T, mass, strict=True):
        away = z - share @ z / n
        own.append((share[:, None] * away).T @ away / (n - 1))
    free, more = mass - 1, len(mass) - 1
    pooled = sum(v * s for v, s in zip(free, own, strict=True)) / free.sum()
    logs = np.array([np.linalg.slogdet(s)[1] for s in own])
    m = free.sum() * np.linalg.slogdet(pooled)[1] - free @ logs
    c = (2 * AXES**2 + 3 * AXES - 1) / (6 * (AXES + 1) * more) * ((1 / free).sum() - 1 / free.sum())
    return (1 - c) * m > chi2.ppf(1 - level, AXES * (AXES + 1) * more / 2)


def bayes_tta(text, stream, batch=1, first=128, covariance="tested", alpha=1.0, epsilon=1e-4, sigma=0.1, level=0.05):
    """Logits of images that enter by batches, and whether classes have covariances of their own in the end."""
    classes, dim = text.shape
    means, mass, images, scatters = text.copy(), np.ones(classes), 0, np.zeros((classes, dim, dim))
    own, out = covariance == "own", []
    for start in range(0, len(stream), batch):
        x = stream[start : start + batch]
        p, before = softmax(SCALE * x @ text.T), images
        images += len(x)
        if covariance == "tested" and before < first <= images:
            seen = stream[:images]
            own = differ(seen, softmax(SCALE * seen @ text.T), level)
        for c in range(classes):
            away = x - means[c]  # from the mean as it was
            scatters[c] += (p[:, [c]] * away).T @ away
            means[c] = (mass[c] * means[c] + p[:, c] @ x) / (mass[c] + p[:, c].sum())
        mass += p.sum(0)
        s = scatters / (mass - 1)[:, None, None] if own else np.array([scatters.sum(0) / images] * classes)
        s = (1 - epsilon) * s + epsilon * sigma**2 * np.eye(dim)
        for row in x:
            away = row - means
            far = [r @ np.linalg.solve(k, r) + np.linalg.slogdet(k)[1] for r, k in zip(away, s, strict=True)]
            out.append(SCALE * text @ row - alpha * SCALE / 100 * (np.array(far) / 2 + np.log(classes)))
    return np.array(out), own


def images(alike, classes=3, dim=16, n=200):
    """A stream about class texts, whose classes are spread in one way or each in its own."""
    rng = np.random.default_rng(0)
    text, ways = unit(rng.standard_normal((classes, dim))), rng.standard_normal((classes, dim, dim))
    y = rng.integers(classes, size=n)
    return text, unit(np.array([text[c] + 0.09 * ways[0 if alike else c] @ rng.standard_normal(dim) for c in y]))


def ask(text, stream, **options):
    task = Task.from_arrays((stream[:0], []), text, logit_scale=SCALE)
    return predict(adapt(method("bayes-tta", **options), task), stream).numpy()


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("options", [{}, {"batch": 64}, {"covariance": "shared"}, {"covariance": "own"}], ids=str)
def test_bayes_tta_is_the_papers(alike, options):
    text, stream = images(alike)
    got = ask(text, stream, **options)
    want, own = bayes_tta(text, stream, **options)
    if "covariance" not in options:
        assert bool(own) is not alike, "the test must tell spreads of one kind from others"
    close(centred(got), centred(want), "bayes-tta's logits")


def test_too_few_images_of_a_class_leave_one_covariance():
    text, stream = images(alike=False, n=24)
    got = ask(text, stream, first=20)
    want, _ = bayes_tta(text, stream, covariance="shared")
    close(centred(got), centred(want), "bayes-tta's logits")
