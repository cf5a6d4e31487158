"""OnZeta's two online steps, image by image, in double precision."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(a):
    e = np.exp(a - a.max())
    return e / e.sum()


def reference(x, text, n, alpha, beta, tau, c_rho=20.0, c_w=0.5, scale=100.0):
    w, rho, answers = text.copy(), np.zeros(len(text)), []
    for i, row in enumerate(x, 1):
        q = softmax(scale * text @ row) * np.exp(rho)
        q /= q.sum()
        for c in range(len(text)):
            rho[c] = max(0.0, rho[c] - c_rho / np.sqrt(i) * (q[c] - alpha / len(text)))
        p = softmax(w @ row / tau)
        part = beta * np.sqrt(min(1.0, i / n))
        answers.append(part * p + (1 - part) * q)
        w = unit(np.stack([w[c] - c_w / np.sqrt(i) * (p[c] - q[c]) / tau * row for c in range(len(text))]))
    return np.stack(answers)


@pytest.mark.parametrize(("n", "alpha", "beta", "tau"), [(40, 1.0, 0.8, 0.04), (25, 0.3, 0.5, 0.1)])
def test_answers_are_those_of_the_two_online_steps(n, alpha, beta, tau):
    rng = np.random.default_rng(0)
    text = unit(rng.standard_normal((6, 12)))
    x = unit(text[rng.integers(0, 6, 40)] + 0.4 * rng.standard_normal((40, 12)))
    task = Task.from_arrays((np.zeros((0, 12)), np.zeros(0, int)), text)
    onzeta = method("onzeta", n=n, alpha=alpha, beta=beta, tau=tau)
    got = predict(adapt(onzeta, task), x).exp().numpy()
    off = np.abs(got - reference(x, text, n, alpha, beta, tau)).max()
    assert off < 1e-3, f"probabilities are off by {off:.2g}"
