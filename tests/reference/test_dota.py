"""DOTA once more, image by image in numpy, from the paper (arXiv:2409.19375)."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, softmax, texts_and_images

OPTIONS = {"sigma": 0.3, "eps": 0.1, "rho": 0.2, "eta": 0.9}


def dota(text, stream, scale, sigma, eps, rho, eta, keep=1.0):
    """Logits of a stream of images, ``(N, V, D)``: each is answered first and then counted, view by view."""
    classes, dim = text.shape
    mu, cov, c = text.copy(), np.array([sigma * np.eye(dim)] * classes), np.ones(classes)
    answers = []
    for views in stream:
        p = softmax(scale * views @ text.T)
        entropy = -(p * np.log(p)).sum(-1)
        kept = np.argsort(entropy)[: max(1, int(len(views) * keep))]
        x, p = views[kept], p[kept]
        precision = np.linalg.inv((1 - eps) * cov.mean(0) + eps * np.eye(dim))
        f = np.array([x.mean(0) @ precision @ m - m @ precision @ m / 2 for m in mu])
        weight = min(rho * c.mean() / len(x), eta)
        answers.append(scale * x.mean(0) @ text.T + weight * scale / 100 * f)
        for k in range(classes):
            new_mu, new_cov = c[k] * mu[k], c[k] * cov[k]
            for view, q in zip(x, p[:, k], strict=True):
                new_mu = new_mu + q * view
                new_cov = new_cov + q * np.outer(view - mu[k], view - mu[k])
            total = c[k] + p[:, k].sum()
            mu[k], cov[k], c[k] = new_mu / total, new_cov / total, total
    return np.array(answers)


def ask(text, stream, scale=6.0, **options):
    task = Task.from_arrays((stream[:0], []), text, logit_scale=scale)
    return predict(adapt(method("dota", **OPTIONS, **options), task), stream)


def test_dota_is_the_papers():
    text, stream, _ = texts_and_images()
    want = dota(text, stream[:, None], 6.0, **OPTIONS)
    close(ask(text, stream), want, "dota's logits")


@pytest.mark.parametrize("keep", [0.5, 0.1])  # two of five; one, though a tenth is none
def test_of_many_views_the_surest_stand_for_the_image(keep):
    text, _, _ = texts_and_images()
    stream = np.stack([texts_and_images(spread=s)[1] for s in (0.6, 0.3, 0.9, 0.7, 0.8)], axis=1)
    want = dota(text, stream, 6.0, **OPTIONS, keep=keep)
    close(ask(text, stream, views=5, keep=keep), want, "dota's logits")
