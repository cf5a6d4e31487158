"""GDA once more, in numpy loops and double precision, from the paper's formulas."""

import itertools

import numpy as np
import pytest
import torch

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def draw(counts, views=3, dim=10, queries=25, seed=0):
    """Unit-norm class texts, support views and labels in no order, and queries."""
    rng = np.random.default_rng(seed)
    text = unit(rng.standard_normal((len(counts), dim)))
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    x = unit(text[labels][:, None] + 0.5 * rng.standard_normal((len(labels), views, dim)))
    return text, x, labels, unit(rng.standard_normal((queries, dim)))


def fit(name, text, x, labels, scale=50.0, **options):
    return adapt(method(name, **options), Task.from_arrays((x, labels), text, logit_scale=scale))


def ks_precision(rows, centre_of):
    """The paper's estimate of Kubokawa and Srivastava: D ((N - 1) S + tr(S) I)^+."""
    n, d = rows.shape
    s = np.zeros((d, d))
    for row, centre in zip(rows, centre_of, strict=True):
        s += np.outer(row - centre, row - centre) / (n - 1)
    return d * np.linalg.pinv((n - 1) * s + np.trace(s) * np.eye(d))


def discriminant(x, mean, precision, classes):
    return x @ precision @ mean - 0.5 * mean @ precision @ mean + np.log(1 / classes)


def close(got, want, what, room=1e-4):
    off = np.abs(got.numpy() - want).max()
    assert off <= room * np.abs(want).max(), f"{what} is off by {off:.2g} of at most {np.abs(want).max():.2g}"


def test_gda_is_the_papers_formula_with_unequal_shots_and_stacked_views():
    text, x, labels, queries = draw((2, 5, 1, 3))
    rows, owner = [], []
    for image, label in zip(x, labels, strict=True):
        for view in image:
            rows.append(view)
            owner.append(label)
    rows, owner = np.array(rows), np.array(owner)
    means = np.array([rows[owner == c].mean(0) for c in range(len(text))])
    precision = ks_precision(rows, means[owner])
    scale, alpha = 50.0, 0.7
    want = np.zeros((len(queries), len(text)))
    for i, q in enumerate(queries):
        for c in range(len(text)):
            gaussian = discriminant(q, means[c], precision, len(text))
            want[i, c] = scale * q @ text[c] + alpha * scale / 100 * gaussian  # alpha is for a logit scale of 100
    close(predict(fit("gda", text, x, labels, scale, alpha=alpha), queries), want, "gda's logits")


def test_gda_may_take_its_priors_from_the_support():
    text, x, labels, queries = draw((2, 5, 1, 3))
    equal, own = (fit("gda", text, x, labels, alpha=0.7, priors=priors) for priors in ("equal", "support"))
    shares = np.array([2, 5, 1, 3]) / 11
    want = 0.7 * 50.0 / 100 * (np.log(shares) - np.log(1 / 4))
    close(predict(own, queries) - predict(equal, queries), np.tile(want, (25, 1)), "what priors add")


def test_gda_from_one_plain_image_a_class_falls_back_on_the_text():
    text, x, labels, queries = draw((1, 1, 1), views=1)
    got = predict(fit("gda", text, x, labels), queries).argmax(-1)
    assert (got.numpy() == (queries @ text.T).argmax(-1)).all(), "without a spread there is nothing to add to zero-shot"


def test_gda_names_a_class_without_images():
    text, x, labels, _ = draw((2, 0, 2))
    with pytest.raises(ValueError, match="got none of class 1"):
        fit("gda", text, x, labels)


def test_base_to_new_has_one_head_for_classes_with_images_and_one_for_those_without():
    text, x, labels, queries = draw((3, 0, 4, 0, 1), views=4)
    k, copies, scale, alpha = 7, 5, 50.0, 2.0
    rows, owner = x.reshape(-1, x.shape[-1]), labels.repeat(x.shape[1])
    base, new = [0, 2, 4], [1, 3]
    means = {c: rows[owner == c].mean(0) for c in base}
    covariance = sum(np.cov(rows[owner == c].T) for c in base) / len(base)
    precisions = {c: np.linalg.pinv(covariance) for c in base}
    inverses = []
    for c in new:
        nearest = sorted(rows, key=lambda row, t=text[c]: -row @ t)[:k]
        means[c] = (sum(nearest) + copies * text[c]) / (k + copies)
        inverses.append(ks_precision(np.array(nearest), np.tile(text[c], (k, 1))))
    precisions |= {c: sum(inverses) / len(new) for c in new}
    want = np.zeros((len(queries), len(text)))
    for c in range(len(text)):
        group = len(base) if c in base else len(new)
        for i, q in enumerate(queries):
            gaussian = discriminant(q, means[c], precisions[c], group)
            want[i, c] = scale * q @ text[c] + alpha * scale / 100 * gaussian
    got = fit("gda-base-to-new", text, x, labels, scale, alpha=alpha, neighbours=k, copies=copies)
    close(predict(got, queries), want, "gda-base-to-new's logits", 1e-3)


def test_base_to_new_says_what_it_lacks():
    text, x, labels, _ = draw((1, 1, 0), views=1)
    with pytest.raises(ValueError, match="must have two support rows of some class"):
        fit("gda-base-to-new", text, x, labels)
    text, x, labels, _ = draw((2, 2, 0), views=2)
    with pytest.raises(ValueError, match="neighbours must be at most the support rows, 8; got 64"):
        fit("gda-base-to-new", text, x, labels)


def test_em_is_the_textbooks():
    text, x, labels, _ = draw((30, 10, 20), views=1, dim=4, seed=3)
    x, scale, ridge, alpha, n = x[:, 0], 10.0, 1e-2, 0.5, 4
    classes, dim = text.shape

    def m_step(posterior):
        mass = posterior.sum(0)
        means = np.array([(posterior[:, [c]] * x).sum(0) / mass[c] for c in range(classes)])
        covariance = ridge * np.eye(dim)
        for i, row in enumerate(x):
            for c in range(classes):
                covariance += posterior[i, c] * np.outer(row - means[c], row - means[c]) / len(x)
        return mass / len(x), means, covariance

    def e_step(priors, means, covariance):
        inverse, volume = np.linalg.inv(covariance), np.linalg.slogdet(2 * np.pi * covariance)[1]
        joint = np.zeros((len(x), classes))
        for i, row in enumerate(x):
            for c in range(classes):
                joint[i, c] = np.log(priors[c]) - 0.5 * ((row - means[c]) @ inverse @ (row - means[c]) + volume)
        return joint

    posterior = np.exp(scale * x @ text.T)
    posterior /= posterior.sum(1, keepdims=True)
    for _ in range(n):
        joint = np.exp(e_step(*m_step(posterior)))
        posterior = joint / joint.sum(1, keepdims=True)
    joint = e_step(*m_step(posterior))
    want = scale * x @ text.T + alpha * (joint - np.log(np.exp(joint).sum(1, keepdims=True)))
    em = fit("gda-em", text, x[:0], labels[:0], scale, alpha=alpha, iterations=n, ridge=ridge)
    close(predict(em, x), want, "gda-em's logits")


def test_em_never_lowers_the_likelihood():
    text, x, labels, _ = draw((30, 10, 20), views=1, dim=4, seed=4)
    x, seen = torch.tensor(x[:, 0]).float(), []
    for n in range(6):
        em = fit("gda-em", text, x[:0], labels[:0], iterations=n, ridge=1e-6)
        seen.append(float(em.mixture(x).log_joint(x).logsumexp(-1).mean()))
    assert all(b >= a - 1e-4 for a, b in itertools.pairwise(seen)), f"log-likelihood must rise; got {seen}"
