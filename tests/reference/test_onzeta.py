"""OnZeta once more, image by image in numpy, from the paper (arXiv:2408.13320)."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, softmax, texts_and_images, unit


def onzeta(text, stream, scale, n, c_rho, c_w, alpha, beta, tau):
    """Mixed probabilities of text labels, under duals rho, and of proxies w; tau is for a scale of 100."""
    w, rho, classes, tau = text.copy(), np.zeros(len(text)), len(text), tau * 100 / scale
    answers = []
    for i, x in enumerate(stream, start=1):
        p = softmax(scale * x @ text.T) * np.exp(rho)
        p /= p.sum()
        rho = np.maximum(rho - c_rho / np.sqrt(i) * (p - alpha / classes), 0)
        q = softmax(w @ x / tau)
        share = beta * np.sqrt(min(i / n, 1))
        answers.append(share * q + (1 - share) * p)
        w = unit(w - c_w / np.sqrt(i) / tau * np.outer(q - p, x))
    return np.array(answers)


@pytest.mark.parametrize("n", [24, 100, 15])
def test_onzeta_is_the_papers(n):
    text, stream, _ = texts_and_images(spread=0.8)
    options = {"n": n, "c_rho": 1.3, "c_w": 0.4, "alpha": 0.7, "beta": 0.6, "tau": 0.02}
    task = Task.from_arrays((stream[:0], []), text, logit_scale=8.0)
    got = predict(adapt(method("onzeta", **options), task), stream)
    close(got.exp(), onzeta(text, stream, 8.0, **options), "onzeta's probabilities")
